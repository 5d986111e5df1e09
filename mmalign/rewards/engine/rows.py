"""Judging row by row: what a judge of one prompt and one output returns or raises becomes a value and a status.

Pictures and sounds that a prompt is about are decoded here; one that cannot be read is the failure of its row, never of
the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from mmalign.core.errors import CapabilityError, DataError, MediaError, ScoreError
from mmalign.core.types import Audio, Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards.engine.columns import missing
from mmalign.rewards.engine.contract import NOT_ABOUT_A_ROW, OF_A_ROW, describe_error, inside
from mmalign.rewards.parsing import Unreadable

Known = dict[int, Mapping[str, Any]]


def media_of(prompt: Prompt, known: Known | None = None) -> Mapping[str, Any]:
    """`prompt.media` decoded, on the CPU; `known` keeps it for rows that share it, for the length of a call.

    Raises:
        ValueError: a file that is missing or cannot be decoded; says which.
    """
    media, known = prompt.media, {} if known is None else known
    if id(media) not in known:
        try:
            known[id(media)] = {name: _plain(value) for name, value in media.items()}
        except (DataError, MediaError, OSError) as error:
            raise ValueError(f"what the prompt is about cannot be read: {error}") from error
    return known[id(media)]


def _plain(value: Any) -> Any:
    return value.to("cpu") if isinstance(value, Audio) else value.detach().cpu()


WHY = "the prompt is empty"


def is_empty(prompt: Prompt) -> bool:
    """Does it say nothing?"""
    return not prompt.text.strip()


def mask_empty_prompts(scores: Scores, prompts: Sequence[Prompt]) -> Scores:
    """Scores of B rows, those whose prompt is empty or blank NOT_APPLICABLE; gradient of the others is untouched."""
    empty = [is_empty(prompt) for prompt in prompts]
    if not any(empty):
        return scores
    gone = torch.tensor(empty, device=scores.status.device) & (scores.status == int(Status.OK))
    reasons = zip(scores.info or [""] * len(scores), gone.tolist(), strict=True)
    return replace(
        scores,
        value=scores.value.masked_fill(gone, float("nan")),
        status=scores.status.masked_fill(gone, int(Status.NOT_APPLICABLE)),
        info=[WHY if none else info for info, none in reasons],
    )


Verdict = float | None | Status | tuple[float, Mapping[str, float]]
Found = tuple[float, Status, str, Mapping[str, float]]
_NAN = float("nan")
T = TypeVar("T")


def judge_rows(
    judge: Callable[[Prompt, Any], Verdict],
    rollout: Rollout,
    floor: float,
    needs: Sequence[str] = (),
    bounds: tuple[float, float] | None = None,
) -> Scores:
    """Scores of B rows.

    Args:
        judge: gives the value; the value and its named parts; None (or `Status.NOT_APPLICABLE`) where it does not
            apply; `Status.PARSE_FAIL`, or raises `Unreadable`, where the output is malformed. Anything else it raises,
            and NaN, is an ERROR of that row alone.
        rollout: outputs go to the judge one by one, detached and on the CPU.
        floor: what PARSE_FAIL scores.
        needs: columns of `Prompt.meta`; a row without one is NOT_APPLICABLE.
        bounds: a value outside them is an ERROR of its row.
    """
    return _each(lambda row, prompt, output: judge(prompt, output), rollout, floor, needs, bounds)


class RowRule(ABC):
    """A reward that judges its rows one by one, by its method `judge`; see `@rule` for one that is a function."""

    @property
    @abstractmethod
    def range(self) -> tuple[float, float]:
        """The least and the largest value; the least is what PARSE_FAIL scores."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of `Prompt.meta` without which a row is NOT_APPLICABLE."""
        return ()

    @abstractmethod
    def judge(self, prompt: Prompt, output: Any) -> Verdict:
        """The verdict on one output, see `judge_rows`."""

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, one at a time."""
        return judge_rows(self.judge, rollout, self.range[0], self.needs)


def read_rows(
    read: Callable[[Prompt, Any], T | None], rollout: Rollout, floor: float, needs: Sequence[str] = ()
) -> tuple[dict[int, T], Scores]:
    """What `read` makes of each row, by row number, for rewards that then judge all rows at once; and their statuses.

    Rows that `read` refuses (see `judge_rows`; None is NOT_APPLICABLE) are not in the first; in the second the value of
    the others is 0.
    """
    values: dict[int, T] = {}

    def kept(row: int, prompt: Prompt, output: Any) -> float | None:
        if (made := read(prompt, output)) is None:
            return None
        values[row] = made
        return 0.0

    scores = _each(kept, rollout, floor, needs)
    return values, scores


def _each(
    judge: Callable[[int, Prompt, Any], Verdict],
    rollout: Rollout,
    floor: float,
    needs: Sequence[str],
    bounds: tuple[float, float] | None = None,
) -> Scores:
    rows = []
    for row, (prompt, output) in enumerate(zip(rollout.prompts, single_outputs(rollout.output), strict=True)):
        why = missing(prompt, needs, row)
        verdict = (_NAN, Status.NOT_APPLICABLE, why, {}) if why else _judged(judge, row, prompt, _own(output))
        rows.append(_within(verdict, bounds))
    values = [floor if status is Status.PARSE_FAIL else value for value, status, _, _ in rows]
    names = list(dict.fromkeys(name for *_, parts in rows for name in parts))
    info = [why for _, _, why, _ in rows]
    return Scores(
        value=torch.tensor(values, dtype=torch.float32),
        status=torch.tensor([int(status) for _, status, _, _ in rows], dtype=torch.int8),
        parts={name: torch.tensor([float(parts.get(name, _NAN)) for *_, parts in rows]) for name in names},
        info=info if any(info) else None,
    )


def _judged(judge: Callable[[int, Prompt, Any], Verdict], row: int, prompt: Prompt, output: Any) -> Found:
    try:
        verdict = judge(row, prompt, output)
        if verdict is None:
            return _NAN, Status.NOT_APPLICABLE, "", {}
        if isinstance(verdict, Status):
            return _NAN, verdict, "", {}
        value, parts = verdict if isinstance(verdict, tuple) and len(verdict) == 2 else (verdict, {})
        value, parts = _number(value), {str(name): _number(part) for name, part in dict(parts).items()}
    except NOT_ABOUT_A_ROW:
        raise
    except Unreadable as error:
        return _NAN, Status.PARSE_FAIL, str(error), {}
    except ImportError as error:
        raise ScoreError(f"a package that the reward uses cannot be imported: {describe_error(error)}.") from error
    except OF_A_ROW as error:
        return _NAN, Status.ERROR, describe_error(error), {}
    return (value, Status.OK, "", parts) if value == value else (_NAN, Status.ERROR, "the value is nan", {})


def _number(value: Any) -> float:
    """A number of Python, NumPy or torch; TypeError for others, also for one in words or of two."""
    if isinstance(value, str | bytes) or (getattr(value, "size", None) not in (None, 1) and not callable(value.size)):
        raise TypeError(f"a rule returns one number, not {type(value).__name__}")
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"a rule returns one number, not {type(value).__name__}") from None


def _own(output: Any) -> Any:
    """A copy, so that what judges a row cannot change what is trained on."""
    if isinstance(output, Audio):
        return replace(output, samples=output.samples.clone())
    return output.clone() if isinstance(output, torch.Tensor) else output


def _within(result: Found, bounds: tuple[float, float] | None) -> Found:
    value, status, _, parts = result
    if bounds is None or status is not Status.OK or inside(value, bounds):
        return result
    return _NAN, Status.ERROR, f"the value {value:g} is outside the declared range {tuple(bounds)}", parts


def single_outputs(output: Any) -> list[Any]:
    """One output per row, detached and on the CPU: pictures (3, H, W), `Audio` of one row, or strings."""
    if isinstance(output, Audio):
        return [output[i : i + 1].to("cpu") for i in range(len(output))]
    return list(output.detach().cpu()) if isinstance(output, torch.Tensor) else list(output)


def modality_of(output: Any) -> Modality:
    """What outputs are. CapabilityError for those that are neither sound, nor a tensor of floats, nor strings."""
    if isinstance(output, Audio):
        return "audio"
    if isinstance(output, torch.Tensor):
        if not output.is_floating_point():
            raise CapabilityError(f"pictures are floats in [0, 1]; these are {output.dtype}: divide them by 255.")
        return "image"
    if odd := next((one for one in output if not isinstance(one, str)), None) if isinstance(output, list) else output:
        raise CapabilityError(
            f"outputs are a tensor of pictures (B, 3, H, W), an Audio, or a list of strings; these are {_kind(odd)}."
        )
    return "text"


def _kind(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def device_of(output: Any) -> torch.device:
    """Where outputs are; texts are on the CPU."""
    tensor = output.samples if isinstance(output, Audio) else output
    return tensor.device if isinstance(tensor, torch.Tensor) else torch.device("cpu")
