"""Score outputs that were made anywhere: rows of a JSONL file, or a folder of media, in; one line per row out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError, DataError, MediaError, MmalignError, all_faults, shown
from mmalign.core.protocols import SetReward
from mmalign.core.texts import read_text
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.data._media import LazyMedia
from mmalign.media import audio, image
from mmalign.rewards._merge import merge

IMAGES, SOUNDS = image.READABLE, tuple(audio.SUFFIXES)
FIELDS = {"prompt": str, "output": str, "meta": dict, "group": str, "image": str, "audio": str}
REQUIRED = ("prompt", "output")


@dataclass(frozen=True)
class Row:
    """One line of the file: a prompt and what was made of it; `place` is "file:line" for messages."""

    prompt: Prompt
    output: str
    group: str
    place: str


def read_rows(file: Path) -> list[Row]:
    """Parse and check every line; of a folder, every picture and sound in name order.

    `image` is the picture that the prompt is about, for captions; it is read when a reward looks at it.

    The prompt of `name.wav` in a folder is what `name.txt` beside it says, where there is one.

    Raises:
        DataError: every bad line (text of a folder) at once, with file, line and field; or a folder without media.
    """
    if file.is_dir():
        return _folder_rows(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file.")
    rows, faults = [], []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        found = _faults(line, place)
        faults += found
        if not found:
            raw = json.loads(line)
            # What a caption was written for; decoded by the rewards that look at it.
            cells = {kind: raw[kind] for kind in ("image", "audio") if raw.get(kind)}
            media = LazyMedia(cells, file.parent, place) if cells else {}
            prompt = Prompt(raw.get("prompt", ""), media, raw.get("meta") or {}, place)
            rows.append(Row(prompt, raw["output"], raw.get("group") or prompt.text, place))
    if faults:
        raise all_faults(faults)
    if not rows:
        raise DataError(f'{file}: holds no rows; write lines like {{"prompt": "…", "output": "picture.png"}}.')
    return rows


def _folder_rows(folder: Path) -> list[Row]:
    media = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES + SOUNDS)
    if not media:
        raise DataError(f"{folder}: no pictures or sounds in it; looked for {', '.join(IMAGES + SOUNDS)}.")
    rows, faults = [], []
    for file in media:
        beside = file.with_suffix(".txt")
        try:
            text = read_text(beside).strip() if beside.is_file() else ""
        except DataError as error:
            faults.append(str(error))
            continue
        rows.append(Row(Prompt(text, place=str(file)), file.name, text or file.name, str(file)))
    if faults:
        raise all_faults(faults)
    return rows


def left_out(folder: Path) -> list[str]:
    """Names in `folder` that its rows leave out: files that are neither media nor a medium's text, and folders.

    Hidden ones are not named.
    """
    names = {file.stem for file in folder.iterdir() if file.suffix.lower() in IMAGES + SOUNDS}

    def taken(file: Path) -> bool:
        return file.suffix.lower() in IMAGES + SOUNDS or (file.suffix == ".txt" and file.stem in names)

    others = sorted(file for file in folder.iterdir() if not (taken(file) or file.name.startswith(".")))
    return [f"{file.name}/" if file.is_dir() else file.name for file in others]


def _faults(line: str, place: str) -> list[str]:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        return [f"{place}: not JSON ({error.msg} at column {error.colno})."]
    if not isinstance(raw, dict):
        return [f"{place}: a row is an object, found {type(raw).__name__}."]
    faults = [f"{place}: field '{key}' is missing." for key in REQUIRED if key not in raw]
    faults += [f"{place}: unknown field '{key}'; a row has {', '.join(FIELDS)}." for key in raw if key not in FIELDS]
    return faults + [
        f"{place}: field '{key}' must be {kind.__name__}, found {'null' if raw[key] is None else shown(raw[key])}."
        for key, kind in FIELDS.items()
        if key in raw and not isinstance(raw[key], kind) and (raw[key] is not None or key in REQUIRED)
    ]


def modality_of(rows: Sequence[Row], reward: Any) -> str:
    """What the outputs are, by their suffix where the reward judges media; mixed files are an error."""
    kinds = {_kind(row.output, reward) for row in rows}
    if len(kinds) > 1:
        odd = next(row for row in rows if _kind(row.output, reward) != _kind(rows[0].output, reward))
        raise DataError(
            f"{odd.place}: field 'output' is of another kind than row 1; score one kind of media at a time."
        )
    kind = kinds.pop()
    if kind not in reward.modalities:
        raise CapabilityError(f"this reward judges {' and '.join(sorted(reward.modalities))}; the outputs are {kind}.")
    return kind


def _kind(output: str, reward: Any) -> str:
    suffix = Path(output).suffix.lower()
    if suffix in IMAGES and (reward.modalities != {"text"}):
        return "image"
    return "audio" if suffix in SOUNDS and reward.modalities != {"text"} else "text"


def score_rows(
    rows: Sequence[Row], reward: Any, folder: Path, batch: int = 64, progress: Callable[[int], None] = lambda n: None
) -> list[dict[str, Any]]:
    """Lines for the output file: one per row, or one for the whole file where the reward judges sets.

    Lines of media name the `output` that they are about.

    Args:
        rows: from `read_rows`.
        reward: a `Reward` or a `SetReward`.
        folder: relative outputs start there.
        batch: rows per call; all at once where a row's score depends on its group.
        progress: called with the rows done.

    Raises:
        DataError: a column that the reward needs is in no row's `meta`, an output cannot be read, or a set cannot be
            scored.
        CapabilityError: the reward cannot judge these outputs.
    """
    from mmalign.rewards._columns import require_columns
    from mmalign.rewards._ready import prepare

    judge = getattr(reward, "reward", reward)
    require_columns({"this reward": judge}, [row.prompt for row in rows])
    batch = len(rows) if getattr(judge, "whole", False) else batch
    kind = modality_of(rows, reward)
    prepare(reward, "this reward")
    read = {"image": _image, "audio": _sound, "text": lambda row, folder: row.output}[kind]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(row.group for row in rows))}
    parts: dict[int, Any] = {}
    done = 0
    for start in range(0, len(rows), batch):
        taken = list(range(start, min(start + batch, len(rows))))
        outputs = {i: read(rows[i], folder) for i in taken}
        for same in _alike(outputs):
            rollout = Rollout(
                prompts=[rows[i].prompt for i in same],
                output=_stack([outputs[i] for i in same]),
                group=torch.tensor([numbers[rows[i].group] for i in same]),
            )
            with torch.no_grad():
                found = reward.embed(rollout) if isinstance(reward, SetReward) else reward(rollout)
            parts |= {i: found[k : k + 1] for k, i in enumerate(same)}
        done += len(taken)
        progress(done)
    found = [parts[i] for i in range(len(rows))]
    names = [] if kind == "text" else [row.output for row in rows]
    if isinstance(reward, SetReward):
        return [_set_line(torch.cat(found), reward) | ({"outputs": names} if names else {})]
    return _row_lines(merge(found, "cpu"), names)


def _row_lines(scores: Scores, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            **({"output": names[i]} if names else {}),
            "value": _number(scores.value[i]),
            "status": Status(int(scores.status[i])).label,
            "parts": {name: _number(part[i]) for name, part in scores.parts.items()},
            **({"info": scores.info[i]} if scores.info and scores.info[i] else {}),
        }
        for i in range(len(scores))
    ]


def _set_line(embedding: Tensor, reward: Any) -> dict[str, Any]:
    """The set's line; a row that could not be embedded has credit null, and `n` counts the others.

    A set that has a value but no credit (of one row, say) has credit null everywhere, and `info` says why.
    """
    sound = embedding.isfinite().flatten(1).all(1)
    rows = embedding[sound]
    if not len(rows):
        raise DataError(f"none of the {len(embedding)} outputs can be embedded (their features are not finite).")
    try:
        value, more = reward.score(rows), reward.report(rows) if hasattr(reward, "report") else {}
    except ValueError as error:
        if isinstance(error, MmalignError):
            raise
        of = f" ({len(embedding) - len(rows)} more cannot be embedded)" if len(rows) < len(embedding) else ""
        raise DataError(f"a set of {len(rows)} outputs{of} cannot be scored: {error}.") from None
    credit: list[float | None] = [None] * len(embedding)
    try:
        shares, why = reward.credit(rows), ""
    except ValueError as error:
        shares, why = [float("nan")] * len(rows), f"no credit: {error}"
    for row, share in zip(sound.nonzero().flatten().tolist(), shares, strict=True):
        credit[row] = _number(share)
    doubts = reward.doubts(rows) if hasattr(reward, "doubts") else []
    return {
        "value": _number(value),
        "n": len(rows),
        "credit": credit,
        **({"parts": {name: _number(part) for name, part in more.items()}} if more else {}),
        **({"info": told} if (told := "; ".join([why] * bool(why) + doubts)) else {}),
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


def _image(row: Row, folder: Path) -> Tensor:
    return _read(lambda: image.read_image(folder / row.output), row)  # type: ignore[no-any-return]


def _sound(row: Row, folder: Path) -> Audio:
    samples, rate = _read(lambda: audio.read_audio(folder / row.output), row)
    return Audio(samples[None], rate)


def _read(read: Callable[[], Any], row: Row) -> Any:
    try:
        return read()
    except MediaError as error:
        raise DataError(f"{row.place}: field 'output': {error}") from None
