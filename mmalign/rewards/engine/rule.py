"""`@rule`: a function of one prompt and one output becomes a reward.

    @rule(modalities={"text"}, range=(0.0, 1.0))
    def short(output: str, *, words: int = 20) -> float | None:
        return float(len(output.split()) <= words)

`short` is then a class with the option `words`; put it first in `__all__` of a file of that name.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from mmalign.core.errors import ConfigError
from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.rewards.engine.rows import Verdict, judge_rows
from mmalign.rewards.engine.rule_signature import asked_by, check_declared


def rule(
    function: Callable[..., Verdict] | None = None,
    /,
    *,
    modalities: Iterable[Modality] | None = None,
    range: tuple[float, float] | None = None,
    isolated: bool = False,
    deterministic: bool = True,
    needs: tuple[str, ...] = (),
    check: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Verdict]], type[Any]]:
    """Turn a function into a reward class of the same name. Its arguments are given by their names:

    | argument | is |
    |---|---|
    | `output` | a picture (3, H, W) of floats in [0, 1], an `Audio` of one row, or a string; a copy, without gradient |
    | `prompt` | the `Prompt`; its text, where the argument is annotated as `str` |
    | any other | that column of `Prompt.meta`; a row without it is NOT_APPLICABLE, unless the argument has a default |
    | after `*` | an option of the reward |

    It returns the value (a number of Python, NumPy or torch), or the value and its named parts; None (or
    `Status.NOT_APPLICABLE`) where the rule does not apply; `Status.PARSE_FAIL`, or raises `Unreadable`, where the
    output is malformed, which scores the floor of `range`. What else it raises, NaN, and a value outside `range`, which
    is never clipped, is an ERROR of that row alone.

    Args:
        modalities: outputs it judges.
        range: of its values; the floor must be finite if it ever returns PARSE_FAIL.
        isolated: run in its own process, where a timeout can end it (slow parsers, code, SQL).
        deterministic: equal input, equal value: scores may be cached.
        needs: options that name a column of `Prompt.meta` the rule cannot do without.
        check: `check(prompt, **options)` raises a ValueError where those columns hold what the rule cannot read: asked
            of every row before training.

    Raises:
        ConfigError: a declaration or function that can be no rule: async, without a return, without `output`.
    """
    named = getattr(function, "__name__", "")
    if function is not None or modalities is None or range is None:
        raise ConfigError(f"@rule {named}: say what it judges, as @rule(modalities={{'text'}}, range=(0.0, 1.0)).")
    kinds, bounds = modalities, range

    def wrap(function: Callable[..., Verdict]) -> type[Any]:
        check_declared(function.__name__, kinds, bounds)
        asked = asked_by(function)

        def call(self: Any, rollout: Rollout) -> Scores:
            options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

            def judge(prompt: Prompt, output: Any) -> Any:
                return function(*(take(prompt, output) for take in asked.arguments), **options)

            return judge_rows(judge, rollout, bounds[0], self.needs, bounds)

        call.__doc__ = "Score B rows, one at a time."
        members: dict[str, Any] = {
            "modalities": frozenset(kinds),
            "range": tuple(bounds),
            "differentiable": False,
            "isolated": isolated,
            "deterministic": deterministic,
            "version": _source(function),
            "needs": property(lambda self: (*asked.columns, *(getattr(self, name) for name in needs))),
            "judge": staticmethod(function),
            "__call__": call,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
        }
        if check is not None:
            members["check_data"] = _checks(check)
        made = dataclasses.make_dataclass(function.__name__, asked.options, namespace=members)
        made.__qualname__ = function.__qualname__
        return made

    return wrap


def _checks(check: Callable[..., None]) -> Callable[[Any, Prompt], None]:
    def check_data(self: Any, prompt: Prompt) -> None:
        check(prompt, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    check_data.__doc__ = "Raise ValueError where the columns of a row cannot be read."
    return check_data


def _source(function: Callable[..., Any]) -> str:
    """What the function says, for the cache: whoever changes it wants new scores."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed in, or made of nothing that has a source
        return ""
