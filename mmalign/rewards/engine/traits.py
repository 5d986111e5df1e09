"""What a reward may say of itself beyond `Reward` and `SetReward`, and a combination beyond `Combination`: every such
trait, its default, and what it means.

A trait is an attribute, a property or a method of the class. Engine, run and objectives read them here and nowhere by
name; `@rule` sets those of the same names.

A run whose data has a column that a reward `needs` nowhere is stopped before anything is loaded. So is one whose rows a
reward can tell, from their columns alone, that it will never be able to score: its `check_data(prompt)` raises a
ValueError that names the column and what it should hold, for such a row is a fault of the data and not of the policy.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any, get_args

from jaxtyping import Float

from mmalign.core.errors import ConfigError, all_faults, did_you_mean, shown
from mmalign.core.protocols import Bounds, Combination
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt
from mmalign.rewards.columns import missing

log = logging.getLogger("mmalign")

_REQUIRED = ("modalities", "range", "differentiable")  # of the protocols themselves
_OLD_NAMES = {"whole": "batch_dependent"}
_NEAR = 0.85  # share of letters in common from which a name is taken for a misspelt trait
_MODALITIES = get_args(Modality)


@dataclass(frozen=True, kw_only=True)
class RewardTraits:
    """The optional members of a reward.

    Args:
        deterministic: equal inputs always score the same, so that scores of rows may be cached.
        isolated: rows are scored one at a time in a process of the reward's own, which a time limit can end.
        batch_dependent: a row's score depends on the other rows: a call is neither split nor cached by row.
        reads_features: it compares outputs by `trajectory["features"]`, the policy's own (`policy.keep_features`).
        needs: columns of `Prompt.meta` without which a row is NOT_APPLICABLE.
        version: raised when the reward's code changes its values; a part of the cache's key.
        prepare: `prepare()` loads models and files before the first call; raises what cannot be loaded.
        fingerprint: `fingerprint() -> str`, the digest of weights and preprocessing; a part of the cache's key.
        check_data: `check_data(prompt)` raises ValueError where a row's columns can never be scored.
        swap_scores: of set rewards, `swap_scores(kept (N, D), other (N, D), start) -> (N - start,)`: the score of
            `kept` with row i replaced by row i of `other`, for each i from `start`; only where that is cheaper than
            N - start calls of `score`.
        report: of set rewards, `report(embedding (N, D))`: further numbers about the set, for tables.
        doubts: of set rewards, `doubts(embedding (N, D))`: sentences that a reader of the value should know.
    """

    deterministic: bool = False
    isolated: bool = False
    batch_dependent: bool = False
    reads_features: bool = False
    needs: tuple[str, ...] = ()
    version: str = "1"
    prepare: Callable[[], None] | None = None
    fingerprint: Callable[[], str] | None = None
    check_data: Callable[[Prompt], None] | None = None
    swap_scores: Callable[[Tensor, Tensor, int], Float[Tensor, " S"]] | None = None
    report: Callable[[Tensor], Mapping[str, Tensor]] | None = None
    doubts: Callable[[Tensor], Sequence[str]] | None = None

    @classmethod
    def of(cls, reward: object) -> RewardTraits:
        """The traits of `reward`, the default of each that it does not have.

        Raises:
            ConfigError: one of them is of the wrong type; says which.
        """
        renamed = {name: old for old, name in _OLD_NAMES.items() if not hasattr(reward, name)}
        values: dict[str, Any] = {f.name: getattr(reward, renamed.get(f.name, f.name), f.default) for f in fields(cls)}
        if faults := [fault for name, value in values.items() if (fault := _fault(name, value))]:
            raise ConfigError([f"reward '{type(reward).__name__}': {fault}" for fault in faults])
        return cls(**{**values, "needs": tuple(values["needs"])})


@dataclass(frozen=True, kw_only=True)
class CombinationTraits:
    """The optional members of a combination. One that learns is `Stateful`, too (`mmalign.core.protocols`).

    Args:
        mentions: the rewards that its options name.
        scale: "group_z" where each reward is put on the scale of its prompt's group first.
        relative: whether the value of a row depends on the others of its group; None: where `scale` is "group_z".
        faults: `faults(ranges, weights)`: a sentence for everything in them that makes no sense to it.
        metrics: `metrics()`: numbers for the logs.
    """

    mentions: tuple[str, ...] = ()
    scale: str = "raw"
    relative: bool | None = None
    faults: Callable[[Mapping[str, Bounds], Mapping[str, float]], list[str]] | None = None
    metrics: Callable[[], Mapping[str, Tensor]] | None = None

    @classmethod
    def of(cls, combination: Combination) -> CombinationTraits:
        """The traits of `combination`, the default of each that it does not have."""
        values: dict[str, Any] = {f.name: getattr(combination, f.name, f.default) for f in fields(cls)}
        return cls(**values)


TRAITS = tuple(f.name for f in fields(RewardTraits))


@lru_cache(maxsize=256)
def trait_faults(kind: type) -> tuple[str, ...]:
    """What is wrong with the traits of a reward class: public names that are nearly a trait's, values of a wrong type.

    A property is judged when it is read (`RewardTraits.of`), for it may depend on the reward's options.
    """
    known, public = (*TRAITS, *_REQUIRED), _public_members(kind)
    faults = [
        f"'{name}' is no trait of a reward. Did you mean '{near[0]}'? If it is the reward's own, begin its name with "
        "an underscore, or call it something else."
        for name in public
        if name not in known and (near := difflib.get_close_matches(name, known, n=1, cutoff=_NEAR))
    ]
    for old, name in _OLD_NAMES.items():
        if name not in public and isinstance(public.get(old), bool | property):
            log.warning("reward '%s': its trait '%s' is called '%s' now; rename it.", kind.__name__, old, name)
    plain = {name: value for name, value in public.items() if name in known and not _read_later(value)}
    return (*faults, *(fault for name, value in plain.items() if (fault := _fault(name, value))))


def check_traits(kind: type, at: str) -> None:
    """Raise ConfigError, each fault behind `at`, unless the traits of a reward class are such."""
    if faults := trait_faults(kind):
        raise ConfigError([f"{at}: {fault}" for fault in faults])


_UNSET = object()  # an option without a default on the class


def _public_members(kind: type) -> dict[str, Any]:
    """The public attributes of a class with their values as they stand in its body, options among them."""
    members: dict[str, Any] = {}
    for base in reversed(kind.__mro__[:-1]):
        members |= dict.fromkeys(vars(base).get("__annotations__", {}), _UNSET) | vars(base)
    return {name: value for name, value in members.items() if not name.startswith("_")}


def _read_later(value: object) -> bool:
    """Is the value made for each reward: by a property, by an option?"""
    return value is _UNSET or isinstance(value, property | cached_property | MemberDescriptorType)


def _fault(name: str, value: Any) -> str:
    """What is wrong with the value of a trait, "" if nothing is."""
    wanted = ""
    if name in ("deterministic", "isolated", "batch_dependent", "reads_features", "differentiable"):
        wanted = "" if isinstance(value, bool) else "True or False"
    elif name == "needs":
        several = isinstance(value, Sequence) and not isinstance(value, str)
        wanted = "" if several and all(isinstance(n, str) for n in value) else 'a tuple of columns, as ("answer",)'
    elif name == "version":
        wanted = "" if isinstance(value, str) else "a text"
    elif name == "modalities":
        kinds = isinstance(value, frozenset | set | tuple | list) and set(value) <= set(_MODALITIES) and len(value) > 0
        wanted = "" if kinds else f"a set of {', '.join(_MODALITIES)}"
    elif name == "range":
        pair = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
        wanted = "" if pair else "the least and the largest value, as (0.0, 1.0)"
    elif name in TRAITS:
        wanted = "" if value is None or callable(value) or isinstance(value, staticmethod) else "a method"
    return f"{name}: {shown(value, 60)}; must be {wanted}." if wanted else ""


def require_columns(rewards: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
    """Stop where no prompt at all has a column that a reward needs, or a reward cannot read what a row's columns hold.

    Args:
        rewards: by their place in the run file, for the message.
        prompts: all that will be scored.

    Raises:
        DataError: every such column and row at once.
    """
    columns = {str(column) for prompt in prompts for column, value in prompt.meta.items() if value is not None}
    faults = [
        f"{place}: needs the column '{column}', which none of the {len(prompts)} rows has."
        f"{did_you_mean(column, columns)} Columns found: {', '.join(sorted(columns)) or 'none'}."
        for place, reward in rewards.items()
        for column in RewardTraits.of(reward).needs
        if column not in columns
    ]
    faults += [fault for place, reward in rewards.items() for fault in _unreadable(place, reward, prompts)]
    if faults and prompts:
        raise all_faults(faults)


def data_check(*rewards: object) -> Callable[[Prompt], None]:
    """The `check_data` of all these rewards, each asked of rows that have its columns; also for rewards made of others.

    Traits are read here and not for every row, for a data set has many.
    """
    checks = [(traits.check_data, traits.needs) for traits in map(RewardTraits.of, rewards)]
    known = [(check, needs) for check, needs in checks if check is not None]

    def check_data(prompt: Prompt) -> None:
        for check, needs in known:
            if not missing(prompt, needs, 0):
                check(prompt)

    return check_data


def _unreadable(place: str, reward: object, prompts: Sequence[Prompt]) -> list[str]:
    faults, check_data = [], data_check(reward)
    for row, prompt in enumerate(prompts):
        try:
            check_data(prompt)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            where = prompt.place or f"row {row} ('{prompt.text[:40]}')"
            faults.append(f"{where}: {place}: {error}. Mend the row or leave it out.")
    return faults


__all__ = [
    "TRAITS",
    "CombinationTraits",
    "RewardTraits",
    "check_traits",
    "data_check",
    "require_columns",
    "trait_faults",
]
