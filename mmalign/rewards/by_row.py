"""Rewards that judge row by row: what a function of one prompt and one output returns or raises becomes a value and a
status.

    @rule(modalities={"text"}, range=(0.0, 1.0))
    def short(output: str, *, words: int = 20) -> float | None:
        return float(len(output.split()) <= words)

`short` is then a class with the option `words`; put it first in `__all__` of a file of that name. What the function
asks for is read from its signature, and a function that can be no rule is refused. `RowRule` is the base of rules that
are classes, `read_rows` for rewards that read row by row and then judge all rows at once.

Pictures and sounds that a prompt is about are decoded here; one that cannot be read is the failure of its row, never of
the run.
"""

from __future__ import annotations

import dataclasses
import dis
import inspect
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from mmalign.core.errors import ConfigError, DataError, MediaError, ScoreError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Modality, OneOutput, Prompt, Rollout, Scores, Status, single_outputs
from mmalign.rewards.columns import missing
from mmalign.rewards.engine.contract import NOT_ABOUT_A_ROW, OF_A_ROW, describe_error, inside
from mmalign.rewards.parsing import Unreadable

Known = dict[int, Mapping[str, Any]]

Verdict = float | None | Status | tuple[float, Mapping[str, float]]

Found = tuple[float, Status, str, Mapping[str, float]]

_NAN = float("nan")

T = TypeVar("T")

_MODALITIES = typing.get_args(Modality)

_SHAPE = "write it as (prompt, output, columns…, *, options…)"


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
        signature = read_signature(function)

        def call(self: Any, rollout: Rollout) -> Scores:
            options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

            def judge(prompt: Prompt, output: OneOutput) -> Any:
                return function(*(take(prompt, output) for take in signature.arguments), **options)

            return judge_rows(judge, rollout, bounds[0], self.needs, bounds)

        call.__doc__ = "Score B rows, one at a time."
        members: dict[str, Any] = {
            "modalities": frozenset(kinds),
            "range": tuple(bounds),
            "differentiable": False,
            "isolated": isolated,
            "deterministic": deterministic,
            "version": _source(function),
            "needs": property(lambda self: (*signature.columns, *(getattr(self, name) for name in needs))),
            "judge": staticmethod(function),
            "__call__": call,
            "__doc__": function.__doc__,
        }
        if check is not None:
            members["check_data"] = _checks(check)
        made = dataclasses.make_dataclass(function.__name__, signature.options, namespace=members)
        # From Python 3.12 on make_dataclass names the module of its caller, whatever the namespace says.
        made.__module__, made.__qualname__ = function.__module__, function.__qualname__
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


@dataclasses.dataclass(frozen=True)
class RuleSignature:
    """The arguments of a rule in their order, its options as dataclass fields, and the columns it cannot do without."""

    arguments: tuple[Callable[[Prompt, Any], Any], ...]
    options: list[Any]
    columns: tuple[str, ...]


def read_signature(function: Callable[..., Any]) -> RuleSignature:
    """Arguments by their names: `prompt`, `output`, and any other a column of `Prompt.meta`; options by keyword.

    Raises:
        ConfigError: everything about it that no rule can have, at once.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if faults := [f"@rule {function.__name__}: {fault}." for fault in (*_of_kind(function), *_of_names(parameters))]:
        raise ConfigError(faults)
    hints = typing.get_type_hints(function, include_extras=True)
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    columns = tuple(
        p.name for p in positional if p.name not in ("prompt", "output") and p.default is inspect.Parameter.empty
    )
    arguments = tuple(_argument(p, hints.get(p.name)) for p in positional)
    return RuleSignature(arguments, [_option(p, hints) for p in parameters if p.kind is p.KEYWORD_ONLY], columns)


def check_declared(name: str, modalities: Iterable[str] | None, bounds: Any) -> None:
    """Raise ConfigError unless modalities and range are such."""
    faults = []
    if modalities is None or isinstance(modalities, str) or not set(modalities) or set(modalities) - set(_MODALITIES):
        faults.append(f"modalities: {modalities!r}; name them as a set, of {', '.join(_MODALITIES)}")
    numbers = isinstance(bounds, tuple | list) and len(bounds) == 2 and all(isinstance(b, int | float) for b in bounds)
    if not numbers or any(math.isnan(b) for b in bounds) or not bounds[0] < bounds[1]:
        faults.append(f"range: {bounds!r}; give the least and the largest value, as (0.0, 1.0)")
    if faults:
        raise ConfigError([f"@rule {name}: {fault}." for fault in faults])


def _of_kind(function: Callable[..., Any]) -> list[str]:
    plain = inspect.unwrap(function)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        return ["is async, and rules are called one after another; write it with def"]
    if inspect.isgeneratorfunction(plain):
        return ["yields, and a rule returns one value; write return"]
    return [] if _returns(plain) else ["returns nothing, so that it would apply to no row; return a number"]


def _of_names(parameters: list[inspect.Parameter]) -> list[str]:
    faults = []
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        faults.append(f"takes *arguments or **arguments, which have no names to give it by; {_SHAPE}")
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if "output" not in positional:
        named = ", ".join(positional) or "none"
        faults.append(f"has no argument called output, which is what it is to judge (it has {named}); {_SHAPE}")
    bare = [p.name for p in parameters if p.default is not p.empty and p.default.__class__.__hash__ is None]
    if bare:
        faults.append(f"{_SHAPE} with immutable defaults; not so: {', '.join(bare)}")
    return faults


def _argument(parameter: inspect.Parameter, hint: object) -> Callable[[Prompt, Any], Any]:
    name, default = parameter.name, parameter.default
    if name == "output":
        return lambda prompt, output: output
    if name == "prompt":
        return (lambda prompt, output: prompt.text) if hint is str else (lambda prompt, output: prompt)
    return lambda prompt, output: default if (cell := prompt.meta.get(name)) is None else cell


def _option(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    hint = hints.get(parameter.name, Any)
    if parameter.default is parameter.empty:
        return parameter.name, hint
    return parameter.name, hint, dataclasses.field(default=parameter.default)


def _returns(function: Callable[..., Any]) -> bool:
    """Is there any return of something other than a plain None? (Always, of what is not written in Python.)"""
    if not hasattr(function, "__code__"):
        return True
    before = None
    for step in dis.get_instructions(function):
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return True
        plain = before is not None and before.opname == "LOAD_CONST" and before.argval is None
        if step.opname == "RETURN_VALUE" and (step.is_jump_target or not plain):
            return True
        before = step
    return False


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
    def judge(self, prompt: Prompt, output: OneOutput) -> Verdict:
        """The verdict on one output, see `judge_rows`."""

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, one at a time."""
        return judge_rows(self.judge, rollout, self.range[0], self.needs)


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


def read_rows(
    read: Callable[[Prompt, Any], T | None], rollout: Rollout, floor: float, needs: Sequence[str] = ()
) -> tuple[dict[int, T], Scores]:
    """What `read` makes of each row, by row number, for rewards that then judge all rows at once; and their statuses.

    Rows that `read` refuses (see `judge_rows`; None is NOT_APPLICABLE) are not in the first; in the second the value of
    the others is 0.
    """
    values: dict[int, T] = {}

    def kept(row: int, prompt: Prompt, output: object) -> float | None:
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


def _judged(judge: Callable[[int, Prompt, Any], Verdict], row: int, prompt: Prompt, output: object) -> Found:
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


def _own(output: object) -> Any:
    """A copy, so that what judges a row cannot change what is trained on."""
    if isinstance(output, Audio):
        return replace(output, samples=output.samples.clone())
    return output.clone() if isinstance(output, torch.Tensor) else output


def _within(result: Found, bounds: tuple[float, float] | None) -> Found:
    value, status, _, parts = result
    if bounds is None or status is not Status.OK or inside(value, bounds):
        return result
    return _NAN, Status.ERROR, f"the value {value:g} is outside the declared range {tuple(bounds)}", parts


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


def _plain(value: Tensor | Audio) -> Tensor | Audio:
    return value.to("cpu") if isinstance(value, Audio) else value.detach().cpu()
