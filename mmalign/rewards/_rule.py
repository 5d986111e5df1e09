"""`@rule`: a function of one prompt and one output becomes a reward.

    @rule(modalities={"text"}, range=(0.0, 1.0))
    def short(prompt: Prompt, output: str, *, words: int = 20) -> float | None:
        return float(len(output.split()) <= words)

`short` is then a class with the option `words`; put it first in `__all__` of a file of that name.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.rewards._rows import Verdict, judge_rows


def rule(
    *,
    modalities: Iterable[Modality],
    range: tuple[float, float],
    isolated: bool = False,
    deterministic: bool = True,
    needs: tuple[str, ...] = (),
    check: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Verdict]], type[Any]]:
    """Turn `function(prompt, output, *, options…)` into a reward class of the same name.

    `output` is a picture (3, H, W), an `Audio` of one row, or a string; without gradient, on the CPU. The function
    returns the value, or the value and its named parts; None (or `Status.NOT_APPLICABLE`) where the rule does not
    apply; `Status.PARSE_FAIL`, or raises `Unreadable`, where the output is malformed, which scores the floor of
    `range`. What else it raises, and NaN, is an ERROR of that row alone.

    Args:
        modalities: outputs it judges.
        range: of its values; the floor must be finite if it ever returns PARSE_FAIL.
        isolated: run in its own process, where a timeout can end it (slow parsers, code, SQL).
        deterministic: equal input, equal value: scores may be cached.
        needs: options that name a column of `Prompt.meta` the rule cannot do without.
        check: `check(prompt, **options)` raises a ValueError where those columns hold what the rule cannot read: asked
            of every row before training.
    """

    def wrap(function: Callable[..., Verdict]) -> type[Any]:
        def call(self: Any, rollout: Rollout) -> Scores:
            options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
            columns = [options[name] for name in needs]
            return judge_rows(lambda prompt, output: function(prompt, output, **options), rollout, range[0], columns)

        call.__doc__ = "Score B rows, one at a time."
        members: dict[str, Any] = {
            "modalities": frozenset(modalities),
            "range": range,
            "differentiable": False,
            "isolated": isolated,
            "deterministic": deterministic,
            "version": _source(function),
            "needs": property(lambda self: tuple(getattr(self, name) for name in needs)),
            "judge": staticmethod(function),
            "__call__": call,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
        }
        if check is not None:
            members["check_data"] = _checks(check)
        made = dataclasses.make_dataclass(function.__name__, _options(function), namespace=members)
        made.__qualname__ = function.__qualname__
        return made

    return wrap


def _checks(check: Callable[..., None]) -> Callable[[Any, Prompt], None]:
    def check_data(self: Any, prompt: Prompt) -> None:
        check(prompt, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    check_data.__doc__ = "Raise ValueError where the columns of a row cannot be read."
    return check_data


def _options(function: Callable[..., Any]) -> list[Any]:
    """The keyword-only parameters as dataclass fields."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    bare = [p.name for p in keywords if p.default is not p.empty and p.default.__class__.__hash__ is None]
    if bare or len(list(parameters)) != len(keywords) + 2:
        raise TypeError(
            f"@rule {function.__name__}: write (prompt, output, *, options…) with immutable defaults"
            + (f"; not so: {', '.join(bare)}" if bare else "")
        )
    return [
        (p.name, hints[p.name])
        if p.default is p.empty
        else (p.name, hints[p.name], dataclasses.field(default=p.default))
        for p in keywords
    ]


def _source(function: Callable[..., Any]) -> str:
    """What the function says, for the cache: whoever changes it wants new scores."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed in, or made of nothing that has a source
        return ""
