"""Score outputs that were made anywhere: rows of a JSONL file, or a folder of media, in; one line per row out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError, DataError, MediaError, MmalignError, ScoreError
from mmalign.core.protocols import SetReward
from mmalign.core.regular import written
from mmalign.core.types import Audio, Rollout, Scores, Status, equal_numbers
from mmalign.data.lazy_rows import LazyRows
from mmalign.media import audio, image
from mmalign.rewards.engine.contract import describe_error, merge, without_value
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.run.rows import Row

if TYPE_CHECKING:
    from mmalign.rewards.engine.sets import Embedded

Progress = Callable[[int, int], None]
SAY_SO = 'A row whose output is a text that looks like a name says "kind": "text".'


def common_modality(rows: Sequence[Row], reward: Any, who: str = "this reward judges") -> str:
    """What the outputs are; DataError for files of several kinds, CapabilityError if the reward judges another one."""
    first = next((row for row in rows if row.kind), None)
    if first is None:
        raise DataError(f"{rows[0].place}: none of the {len(rows)} outputs is a text, a picture or a sound.")
    kind = first.kind
    if odd := next((row for row in rows if row.kind not in ("", kind)), None):
        raise DataError(
            f"{odd.place}: field 'output' is of another kind ({odd.kind}) than in {first.place} ({kind}); score "
            f"one kind at a time. {SAY_SO}"
        )
    if kind not in reward.modalities:
        raise CapabilityError(f"{who} {' and '.join(sorted(reward.modalities))}; the outputs are {kind}. {SAY_SO}")
    return kind


def score_rows(
    rows: Sequence[Row],
    reward: Any,
    folder: Path,
    batch: int = 64,
    progress: Progress = lambda done, total: None,
    name: str = "",
) -> list[dict[str, Any]]:
    """Lines for the output file: one per row, or one for the whole file where the reward judges sets.

    Lines of media name the `output` that they are about, those of texts hold `prompt` and `output`. A row whose output
    cannot be read has status `error`, with the reason in `info`; the others are scored. Of a set, such rows and those
    that the reward cannot embed have no credit; `failed` counts them, and `info` names the first.

    Args:
        rows: from `read_output_rows`.
        reward: a `Reward` or a `SetReward`.
        folder: relative outputs start there.
        batch: rows per call; all at once where a row's score depends on its group.
        progress: called with (rows done, rows in all).
        name: of the reward, for messages; its class's by default.

    Raises:
        DataError: a column that the reward needs is in no row's `meta`, or a set cannot be scored.
        CapabilityError: the reward cannot judge these outputs.
        ScoreError: a set reward can embed none of them, or cannot score the set.
    """
    kind = checked_kind(rows, reward)
    return score_checked(rows, reward, folder, kind, batch, progress, name)


def checked_kind(rows: Sequence[Row], reward: Any) -> str:
    """What the outputs are, of rows that the reward can judge, which is loaded; see `score_rows` for what is raised."""
    from mmalign.rewards.engine.foreign_code import prepare
    from mmalign.rewards.engine.traits import require_columns

    prompts = LazyRows(lambda index: rows[index].prompt, range(len(rows)))
    require_columns({"this reward": _named(reward)}, prompts)
    kind = common_modality(rows, reward)
    prepare(reward, "this reward")
    return kind


def scores_rows_alone(reward: Any) -> bool:
    """Does a row's score hang on no other row, so that a file may be scored part by part?"""
    return not isinstance(reward, SetReward) and not RewardTraits.of(_named(reward)).batch_dependent


def _named(reward: Any) -> Any:
    """What the reward's name in the file stands for."""
    from mmalign.rewards import Credit, Guarded

    inner = reward.reward if isinstance(reward, Guarded | Credit) else reward
    return inner.reward if isinstance(inner, Credit) else inner


def score_checked(
    rows: Sequence[Row],
    reward: Any,
    folder: Path,
    kind: str,
    batch: int = 64,
    progress: Progress = lambda done, total: None,
    name: str = "",
) -> list[dict[str, Any]]:
    """Lines of some rows whose outputs are of `kind`, as `checked_kind` gave it for all; see `score_rows`."""
    from mmalign.rewards.encoders import named_by

    named, of_set = _named(reward), isinstance(reward, SetReward)
    name = name or type(named).__name__
    encoder = {"encoder": label} if (label := named_by(named)) else {}  # without it the numbers say nothing
    batch = len(rows) if RewardTraits.of(named).batch_dependent else batch
    unread: dict[int, str] = {}
    scored = _scored(rows, partial(_embedded, name, named) if of_set else reward, folder, kind, batch, progress, unread)
    files = [] if kind == "text" else [written(row.output) for row in rows]
    if of_set:
        line = _set_line(_whole_set(name, scored, unread), named, name)
        return [line | encoder | ({"outputs": files} if files else {})]
    scores = [scored[i] if i in scored else without_value(1, Status.ERROR, unread[i]) for i in range(len(rows))]
    about = [{"output": file} for file in files] or [{"prompt": row.prompt.text, "output": row.output} for row in rows]
    return [line | encoder for line in _row_lines(merge(scores, "cpu"), about)]


def _scored(
    rows: Sequence[Row],
    reward: Callable[[Rollout], Any],
    folder: Path,
    kind: str,
    batch: int,
    progress: Progress,
    unread: dict[int, str],
) -> dict[int, Any]:
    """Each row's `Scores`, or its `Embedded` of a set, by its number; those that cannot be read enter `unread`."""
    group = equal_numbers(row.group for row in rows)
    scored: dict[int, Any] = {}
    for start in range(0, len(rows), batch):
        taken = list(range(start, min(start + batch, len(rows))))
        for same, rollout in read_rollouts(rows, taken, kind, folder, unread):
            rollout = replace(rollout, group=group[same])
            with torch.no_grad():
                together = reward(rollout)
            scored |= {i: together[k : k + 1] for k, i in enumerate(same)}
        progress(taken[-1] + 1, len(rows))
    return scored


def read_rollouts(
    rows: Sequence[Row], taken: Sequence[int], kind: str, folder: Path, unread: dict[int, str]
) -> Iterator[tuple[list[int], Rollout]]:
    """The rows of the numbers `taken` as rollouts of outputs of one size, with their numbers; `unread` says why not."""
    outputs = {i: output for i in taken if (output := _output(rows[i], kind, folder, unread, i)) is not None}
    for same in _alike(outputs):
        yield same, Rollout.of([rows[i].prompt for i in same], _stack([outputs[i] for i in same]))


def failed(lines: Sequence[Mapping[str, Any]]) -> str:
    """A sentence that counts the lines that have no score by a fault that is not the outputs' own; "" if none has."""
    if lines and (count := lines[0].get("failed")):  # of a set
        return f"{count} of {count + lines[0]['n']} rows are not in the set: {lines[0].get('info', 'not finite')}"
    return unscored(lines)


def unscored(lines: Iterable[Mapping[str, Any]]) -> str:
    """`failed` of lines that are read once, each of a row."""
    total = bad = 0
    first = ""
    for total, line in enumerate(lines, 1):
        if line.get("status") in (Status.ERROR.label, Status.TIMEOUT.label):
            bad += 1
            first = first or f"{total}: {line.get('info') or line['status']}"
    return f"{bad} of {total} rows could not be scored (error or timeout); the first, {first}" if bad else ""


def _output(row: Row, kind: str, folder: Path, unread: dict[int, str], at: int) -> Any:
    """The output itself; None where it cannot be read, with the reason in `unread`."""
    path = folder / row.output
    try:
        if not row.kind:
            unread[at] = f"{row.place}: field 'output' names {written(path)}, no picture and no sound. {SAY_SO}"
            return None
        if kind == "image":
            return image.read_image(path)
        if kind == "audio":
            samples, rate = audio.read_audio(path)
            return Audio(samples[None], rate)
        return row.output
    except MediaError as error:
        unread[at] = f"{row.place}: field 'output': {error}"
        return None


def _embedded(name: str, reward: SetReward, rollout: Rollout) -> Embedded:
    """The embeddings of some rows; the reasons of those that have none name their place."""
    from mmalign.rewards.engine.sets import embed_rows

    embedded = embed_rows(name, reward, rollout)
    embedded.why = {row: f"{embedded.places[row]}: cannot be embedded: {why}" for row, why in embedded.why.items()}
    return embedded


def _whole_set(name: str, parts: Mapping[int, Embedded], unread: Mapping[int, str]) -> Embedded:
    """All rows in their order; an output that could not be read has no embedding either.

    Raises:
        DataError: none of the outputs can be read.
        ScoreError: none of them can be embedded, or their embeddings differ in width.
    """
    from mmalign.rewards.engine.sets import Embedded

    rows = len(parts) + len(unread)
    if not parts:
        raise DataError(f"none of the {rows} outputs can be read; the first: {unread[min(unread)]}")
    pieces = [parts[row] if row in parts else Embedded.failed(1, unread[row]) for row in range(rows)]
    embedded = Embedded.joined(name, pieces)
    if embedded.is_empty:
        raise ScoreError(f"reward '{name}' could embed none of {rows} rows; the first: {embedded.why[0]}")
    return embedded


def _row_lines(scores: Scores, about: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            **about[i],
            "value": _number(scores.value[i]),
            "status": Status(int(scores.status[i])).label,
            "parts": {name: _number(part[i]) for name, part in scores.parts.items()},
            **({"info": scores.info[i]} if scores.info and scores.info[i] else {}),
        }
        for i in range(len(scores))
    ]


def _set_line(embedded: Embedded, reward: SetReward, name: str = "") -> dict[str, Any]:
    """The set's line; a row that could not be embedded has credit null, and `n` counts the others.

    A set that has a value but no credit (of one row, say) has credit null everywhere, and `info` says why.
    """
    total, finite = len(embedded.rows), embedded.finite
    rows = embedded.rows[finite]
    if not len(rows):
        raise DataError(f"none of the {total} outputs can be embedded (their features are not finite).")
    traits = RewardTraits.of(reward)
    try:
        value, more = reward.score(rows), traits.report(rows) if traits.report is not None else {}
    except MmalignError:
        raise
    except ValueError as error:
        of = f" ({total - len(rows)} more cannot be embedded)" if len(rows) < total else ""
        raise DataError(f"a set of {len(rows)} outputs{of} cannot be scored: {error}.") from None
    except Exception as error:  # of a reward's own code
        raise ScoreError(f"reward '{name}' cannot score a set of {len(rows)} rows: {describe_error(error)}.") from error
    credit: list[float | None] = [None] * total
    try:
        shares, why = reward.credit(rows), ""
    except ValueError as error:
        shares, why = torch.full((len(rows),), float("nan")), f"no credit: {error}"
    if embedded.why:
        first = embedded.why[min(embedded.why)]
        missing = f"{len(embedded.why)} of {total} outputs have no embedding; the first: {first}"
        why = f"{why}; {missing}" if why else missing
    for row, share in zip(finite.nonzero().flatten().tolist(), shares, strict=True):
        credit[row] = _number(share)
    doubts = list(traits.doubts(rows)) if traits.doubts is not None else []
    return {
        "value": _number(value),
        "n": len(rows),
        **({"failed": total - len(rows)} if len(rows) < total else {}),
        "credit": credit,
        **({"parts": {name: _number(part) for name, part in more.items()}} if more else {}),
        **({"info": info} if (info := "; ".join([why] * bool(why) + doubts)) else {}),
    }


def _number(value: Tensor | float) -> float | None:
    plain = float(value)
    return plain if plain == plain and abs(plain) != float("inf") else None


def _alike(outputs: Mapping[int, Any]) -> list[list[int]]:
    """Rows whose media have one shape, and so can share a call."""
    groups: dict[Any, list[int]] = {}
    for i, output in outputs.items():
        shape = (*output.samples.shape, output.rate) if isinstance(output, Audio) else ()
        groups.setdefault(tuple(output.shape) if isinstance(output, Tensor) else shape, []).append(i)
    return list(groups.values())


def _stack(outputs: Sequence[Any]) -> Any:
    if isinstance(outputs[0], Tensor):
        return torch.stack(list(outputs))
    if isinstance(outputs[0], Audio):
        return Audio(torch.cat([o.samples for o in outputs]), outputs[0].rate)
    return list(outputs)
