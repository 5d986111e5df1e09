"""A judge of one prompt and one output, applied to every row: what it returns or raises becomes a status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from mmalign.core.errors import ScoreError
from mmalign.core.types import Audio, Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards._columns import missing
from mmalign.rewards._isolate import NOT_ABOUT_A_ROW, OF_A_ROW, said
from mmalign.rewards.parsing import Unreadable

Verdict = float | None | Status | tuple[float, Mapping[str, float]]
_NAN = float("nan")
T = TypeVar("T")


def judge_rows(
    judge: Callable[[Prompt, Any], Verdict], rollout: Rollout, floor: float, needs: Sequence[str] = ()
) -> Scores:
    """Scores of B rows.

    Args:
        judge: gives the value; the value and its named parts; None (or `Status.NOT_APPLICABLE`) where it does not
            apply; `Status.PARSE_FAIL`, or raises `Unreadable`, where the output is malformed. Anything else it raises,
            and NaN, is an ERROR of that row alone.
        rollout: outputs go to the judge one by one, detached and on the CPU.
        floor: what PARSE_FAIL scores.
        needs: columns of `Prompt.meta`; a row without one is NOT_APPLICABLE.
    """
    return _each(lambda row, prompt, output: judge(prompt, output), rollout, floor, needs)


def read_rows(
    read: Callable[[Prompt, Any], T | None], rollout: Rollout, floor: float, needs: Sequence[str] = ()
) -> tuple[dict[int, T], Scores]:
    """What `read` makes of each row, by row number, for rewards that then judge all rows at once; and their statuses.

    Rows that `read` refuses (see `judge_rows`; None is NOT_APPLICABLE) are not in the first; in the second the value of
    the others is 0.
    """
    found: dict[int, T] = {}

    def kept(row: int, prompt: Prompt, output: Any) -> float | None:
        if (made := read(prompt, output)) is None:
            return None
        found[row] = made
        return 0.0

    scores = _each(kept, rollout, floor, needs)
    return found, scores


def _each(judge: Callable[[int, Prompt, Any], Verdict], rollout: Rollout, floor: float, needs: Sequence[str]) -> Scores:
    rows = []
    for row, (prompt, output) in enumerate(zip(rollout.prompts, single_outputs(rollout.output), strict=True)):
        why = missing(prompt, needs, row)
        rows.append((_NAN, Status.NOT_APPLICABLE, why, {}) if why else _judged(judge, row, prompt, output))
    values = [floor if status is Status.PARSE_FAIL else value for value, status, _, _ in rows]
    names = list(dict.fromkeys(name for *_, parts in rows for name in parts))
    info = [why for _, _, why, _ in rows]
    return Scores(
        value=torch.tensor(values, dtype=torch.float32),
        status=torch.tensor([int(status) for _, status, _, _ in rows], dtype=torch.int8),
        parts={name: torch.tensor([float(parts.get(name, _NAN)) for *_, parts in rows]) for name in names},
        info=info if any(info) else None,
    )


def _judged(
    judge: Callable[[int, Prompt, Any], Verdict], row: int, prompt: Prompt, output: Any
) -> tuple[float, Status, str, Mapping[str, float]]:
    try:
        found = judge(row, prompt, output)
        if found is None:
            return _NAN, Status.NOT_APPLICABLE, "", {}
        if isinstance(found, Status):
            return _NAN, found, "", {}
        value, parts = found if isinstance(found, tuple) else (found, {})
        value = float(value)
    except NOT_ABOUT_A_ROW:
        raise
    except Unreadable as error:
        return _NAN, Status.PARSE_FAIL, str(error), {}
    except ImportError as error:
        raise ScoreError(f"a package that the reward uses cannot be imported: {said(error)}.") from error
    except OF_A_ROW as error:
        return _NAN, Status.ERROR, said(error), {}
    return (value, Status.OK, "", parts) if value == value else (_NAN, Status.ERROR, "the value is nan", {})


def single_outputs(output: Any) -> list[Any]:
    """One output per row, detached and on the CPU: pictures (3, H, W), `Audio` of one row, or strings."""
    if isinstance(output, Audio):
        return [output[i : i + 1].to("cpu") for i in range(len(output))]
    return list(output.detach().cpu()) if isinstance(output, torch.Tensor) else list(output)


def made_of(output: Any) -> Modality:
    """What outputs are."""
    return "audio" if isinstance(output, Audio) else "image" if isinstance(output, torch.Tensor) else "text"


def device_of(output: Any) -> torch.device:
    """Where outputs are; texts are on the CPU."""
    tensor = output.samples if isinstance(output, Audio) else output
    return tensor.device if isinstance(tensor, torch.Tensor) else torch.device("cpu")
