"""From a run file to its parts. Everything is checked here, all faults at once, before any weight is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mmalign.core.config import RunFile, Spec
from mmalign.core.errors import CapabilityError, ConfigError, DataError, did_you_mean
from mmalign.core.protocols import ScorePolicy, members, offers
from mmalign.core.registry import construct
from mmalign.run.references import anchored
from mmalign.run.registries import REGISTRIES

T = TypeVar("T")
GIVEN = ("adapter", "reward", "relative_to", "make")  # fields that the run sets, never the file
MEASURED = ("judge", "verifier")  # roles of rewards that are not trained on


@dataclass
class Parts:
    """The built components of one run; `load` brings weights in."""

    file: RunFile
    adapter: Any
    policy: Any
    reward: Any
    objective: Any
    source: Any
    judges: dict[str, Any]

    def load(self) -> None:
        """Load the generator's weights (rewards load theirs on first use)."""
        if hasattr(self.adapter, "load"):
            self.adapter.load()

    def stateful(self) -> dict[str, Any]:
        """What a checkpoint must hold besides weights: parts with a state of their own."""
        named = {"policy": self.policy, "reward": self.reward, "objective": self.objective}
        return {name: part for name, part in named.items() if hasattr(part, "load_state_dict")}

    def resolved(self) -> RunFile:
        """The run file with every default filled in, so that it means the same from every folder."""
        return anchored(self.filled(), self.source)

    def filled(self) -> RunFile:
        """The run file with every default filled in, and its paths as they were written."""
        rewards = {
            name: {**resolve(spec, slot.reward), **slot_options(slot)}
            for (name, spec), slot in zip(self.file.rewards.items(), self.slots(), strict=True)
        }
        judges = {
            name: resolve(spec, self.judges[name]) | {k: v for k, v in spec.items() if k == "role"}
            for name, spec in self.file.evaluation.judges.items()
        }
        folder = self.file.folder
        return replace(
            self.file,
            base=str(folder.absolute()) if folder else "",
            adapter=resolve(self.file.adapter, self.adapter),
            policy=resolve(self.file.policy, self.policy),
            rewards=rewards,
            objective=resolve(self.file.objective, self.objective),
            data=resolve(self.file.data, self.source),
            combine=resolve(self.file.combine, getattr(self.reward, "combination", None)),
            evaluation=replace(self.file.evaluation, judges=judges),
        )

    def slots(self) -> list[Any]:
        """The reward slots in the order of the run file."""
        return list(self.reward.slots.values()) if self.reward is not None else []


class Faults:
    """Runs builders one by one and keeps what they complain about."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, make: Callable[[], T]) -> T | None:
        """`make()`, or None with its faults remembered."""
        try:
            return make()
        except ConfigError as error:
            self.found += error.faults
            return None

    def stop_if_any(self, source: Path | None) -> None:
        """Raise everything found."""
        if self.found:
            raise ConfigError([f"{source}: {fault}" if source else fault for fault in self.found])


def build(run: RunFile, allow: Collection[str] = ()) -> Parts:
    """Make every component of `run` without loading weights.

    Raises:
        ConfigError: unknown names, options and wrong values, all at once.
        CapabilityError: components that are right by themselves and cannot work together.
    """
    faults = Faults()
    kinds = {kind: REGISTRIES[kind] for kind in REGISTRIES}
    adapter = faults.attempt(lambda: kinds["adapters"].build(run.adapter, "adapter", allow))
    policy = faults.attempt(lambda: kinds["policies"].build(run.policy, "policy", allow, adapter=adapter))
    share = run.trainer.stop_on_failed_scores
    reward = faults.attempt(lambda: build_reward(run.rewards, run.combine, share, allow))
    needed = _given(kinds["objectives"], run.objective, "reward", reward, faults, allow)
    objective = faults.attempt(lambda: kinds["objectives"].build(run.objective, "objective", allow, **needed))
    beside = _given(kinds["data"], run.data, "relative_to", run.folder, faults, allow)
    source = faults.attempt(lambda: kinds["data"].build(run.data, "data", allow, **beside))
    judges = {
        name: faults.attempt(lambda s=spec, n=name: build_judge(n, s, allow))  # type: ignore[misc]
        for name, spec in run.evaluation.judges.items()
    }
    faults.stop_if_any(run.source)
    parts = Parts(run, adapter, policy, reward, objective, source, judges)
    check_fit(parts)
    return parts


def build_reward(
    specs: Mapping[str, Spec], combine: Spec, failed_share: float = 0.5, allow: Collection[str] = ()
) -> Any:
    """The run's one reward: named slots and how they combine; None without slots."""
    from mmalign.rewards import Mix, Slot

    if not specs:
        return None
    faults = Faults()
    own = {f.name for f in dataclasses.fields(Slot)} - {"reward"}
    slots: dict[str, Any] = {}
    for name, spec in specs.items():
        options = {k: v for k, v in spec.items() if k not in own}
        seen = len(faults.found)
        made = faults.attempt(lambda o=options, n=name: build_one_reward(o, f"rewards.{n}", allow))  # type: ignore[misc]
        faults.found[seen:] = [_or_of_slot(fault, f"rewards.{name}.", sorted(own)) for fault in faults.found[seen:]]
        place = {k: v for k, v in spec.items() if k in own}
        slots[name] = faults.attempt(lambda p=place, m=made, n=name: construct(Slot, p, f"rewards.{n}", reward=m))  # type: ignore[misc]
    combination = faults.attempt(lambda: REGISTRIES["combinations"].build(combine, "combine", allow))
    faults.stop_if_any(None)
    return Mix(slots=slots, combination=combination, failed_share=failed_share)


def _or_of_slot(fault: str, at: str, own: Sequence[str]) -> str:
    """An option that the reward does not know may be a misspelt one of its slot."""
    key, _, said = fault.removeprefix(at).partition(": ")
    if "." in key or not said.startswith("unknown option."):
        return fault
    return f"{fault} Of every reward: {', '.join(own)}.{did_you_mean(key, own)}"


def build_judge(name: str, spec: Spec, allow: Collection[str] = ()) -> Any:
    """A reward that only measures."""
    if (role := spec.get("role", "judge")) not in MEASURED:
        raise ConfigError(f"evaluation.judges.{name}.role: {role!r}; there is {', '.join(MEASURED)}.")
    options = {k: v for k, v in spec.items() if k != "role"}
    return build_one_reward(options, f"evaluation.judges.{name}", allow)


def load_reward(name: str, allow: Collection[str] = (), **options: Any) -> Any:
    """The reward called `name`, whatever it is made of (a generator, a judge); "module:Class" only if in `allow`.

    Raises:
        ConfigError: an unknown name or option, or a value of the wrong kind; all of them at once.
    """
    return build_one_reward({"name": name, **options}, name, allow)


def build_one_reward(spec: Spec, at: str, allow: Collection[str] = ()) -> Any:
    """The reward at `at`; one with a field `make` is given the way to build parts of its own (a generator, a judge)."""

    def make(kind: str, part: Spec, place: str, **given: Any) -> Any:
        here = f"{at}.{place}"
        if kind == "rewards":
            return build_one_reward(part, here, allow)
        return REGISTRIES[kind].build(part, here, allow, **given)

    rewards = REGISTRIES["rewards"]
    return rewards.build(spec, at, allow, **_given(rewards, spec, "make", make, Faults(), allow))


def check_fit(parts: Parts) -> None:
    """Can the objective drive this policy, and can every reward judge what it makes?

    Raises:
        CapabilityError: naming what would fit.
        ConfigError: a combination that the objective does not look at.
    """
    needs = parts.objective.needs
    if getattr(parts.adapter, "train", "") == "frozen":
        raise CapabilityError("adapter.train: frozen trains nothing; set it to lora or full.")
    if not offers(type(parts.policy), needs):
        missing = [m for m in members(needs) if not hasattr(type(parts.policy), m)]
        raise CapabilityError(
            f"objective '{parts.file.objective['name']}' drives a {needs.__name__}; policy "
            f"'{parts.file.policy['name']}' lacks {', '.join(missing)}. Policies that fit: {', '.join(fitting(needs))}."
        )
    check_scorer(parts)
    combine = parts.file.combine["name"]
    if getattr(parts.objective, "by_member", False) and combine != "weighted_sum":
        raise ConfigError(
            f"combine: objective '{parts.file.objective['name']}' takes each reward by its weight, so '{combine}' "
            "would have no effect; remove the section."
        )
    grouped = [name for name, slot in parts.reward.slots.items() if slot.over == "group"] if parts.reward else []
    if grouped and getattr(parts.objective, "by_set", False):
        raise ConfigError(
            f"rewards.{grouped[0]}.over: group has no effect with builder '{parts.objective.builder}', whose sets hold "
            "one output per prompt; remove it, or set builder: pair."
        )
    if getattr(parts.objective, "absolute", False) and parts.reward is not None and parts.reward.relative:
        raise ConfigError(
            f"combine: '{combine}' puts rewards on a common scale within each group, but objective "
            f"'{parts.file.objective['name']}' (baseline: {parts.objective.baseline}) compares scores beyond it; set "
            "combine: {name: weighted_sum, scale: running}, or raw where the rewards' units agree."
        )
    modality = parts.policy.modality
    rewards = {f"rewards.{name}": slot.reward for name, slot in parts.reward.slots.items()} if parts.reward else {}
    rewards |= {f"evaluation.judges.{name}": judge for name, judge in parts.judges.items()}
    for place, reward in rewards.items():
        if modality not in reward.modalities:
            raise CapabilityError(
                f"{place}: judges {' and '.join(sorted(reward.modalities))}, but the policy makes {modality}."
            )
    if hasattr(needs, "rsample"):
        blind = [
            name
            for name, slot in (parts.reward.slots if parts.reward else {}).items()
            if not slot.reward.differentiable
        ]
        if blind:
            raise CapabilityError(
                f"objective '{parts.file.objective['name']}' follows the reward's gradient, but "
                f"{', '.join(f'rewards.{name}' for name in blind)} has none; use a differentiable reward or grpo."
            )


def judges(policy: Any) -> bool:
    """Does the policy (a class or an instance) judge outputs, and make none?"""
    return offers(policy, ScorePolicy) and not hasattr(policy, "generate")


def check_scorer(parts: Parts) -> None:
    """Stop a run of a scorer that asks for what only generators can have.

    Raises:
        ConfigError: rewards, judges or previews of outputs that it does not make.
    """
    if not judges(type(parts.policy)):
        return
    name = parts.file.policy["name"]
    asked = [f"rewards.{key}" for key in parts.file.rewards]
    asked += [f"evaluation.judges.{key}" for key in parts.judges]
    faults = [f"{place}: judges what a policy makes, and policy '{name}' makes nothing; remove it." for place in asked]
    if parts.file.trainer.preview_every:
        faults.append(f"trainer.preview_every: policy '{name}' makes nothing to show; use evaluate_every.")
    if faults:
        raise ConfigError(faults)


def notes(parts: Parts) -> list[str]:
    """What is allowed and may not be what was meant."""
    mixed, objective = parts.reward, parts.objective
    twice = getattr(objective, "std", "") == "group" and getattr(mixed, "relative", False)
    if not twice or getattr(mixed.combination, "scale", "") != "group_z":
        return []
    return [
        "combine: scale group_z divides each reward by its deviation within the group, and objective.std: group then "
        "divides their sum by its own; std: none with whiten: true (GDPO) divides once."
    ]


def check_columns(parts: Parts, held_out: Sequence[Any] = ()) -> None:
    """Are the data's rows of the kind that is read, with every column that the rewards need? (A scorer's run has none.)

    Raises:
        DataError: rows of another kind; every column that no row has.
    """
    from mmalign.rewards._columns import require_columns

    check_rows(parts)
    if judges(type(parts.policy)):
        return
    slots = parts.reward.slots.items() if parts.reward else ()
    rewards = {f"rewards.{name}": slot.reward for name, slot in slots}
    measured = {f"evaluation.judges.{name}": judge for name, judge in parts.judges.items()}
    if any(hasattr(reward, "needs") for reward in rewards.values()):
        require_columns(rewards, [getattr(item, "prompt", item) for item in parts.source.training_items()])
    require_columns(rewards | measured, held_out)


def check_rows(parts: Parts) -> None:
    """Raise DataError for rows that the objective does not read, or of what the policy does not make."""
    kind = getattr(parts.source.training_items(), "kind", None)  # of the outputs of preferences
    rows = "prompts" if kind is None else "preferences"
    if rows not in (reads := getattr(parts.objective, "reads", {"prompts"})):
        name, online = parts.file.objective["name"], getattr(parts.objective, "online", None)
        instead = "" if online is None else f", or set objective.online (now {online})"
        raise DataError(
            f"data: holds {rows}, but objective '{name}' reads {' or '.join(sorted(reads))}; "
            f"use data: {{name: {min(reads)}, …}}{instead}."
        )
    if kind not in (None, parts.policy.modality):
        raise DataError(
            f"data: chosen and rejected hold {kind}, but the policy is of {parts.policy.modality}; name files by their "
            "suffix, or say data.outputs."
        )


def fitting(needs: type) -> list[str]:
    """The policies that offer the capability."""
    registry = REGISTRIES["policies"]
    return [name for name in registry.names() if offers(registry.get(name), needs)] or ["none"]


def resolve(spec: Spec, component: Any) -> Spec:
    """`spec` with the component's own defaults filled in, as plain data."""
    if component is None:
        return dict(spec)
    options = {
        f.name: plain(getattr(component, f.name))
        for f in dataclasses.fields(component)
        if f.init and f.name not in GIVEN and not f.name.startswith("_")
    }
    return {"name": spec["name"], **options}


def slot_options(slot: Any) -> Spec:
    """The options of a reward's slot (weight, monitor, …)."""
    return {f.name: plain(getattr(slot, f.name)) for f in dataclasses.fields(slot) if f.init and f.name != "reward"}


def plain(value: Any) -> Any:
    """YAML-safe data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _given(registry: Any, spec: Spec, field: str, value: Any, faults: Faults, allow: Collection[str]) -> dict[str, Any]:
    """`{field: value}` if the component that `spec` names has such a field; a missing value is a fault."""
    try:
        component = registry.get(spec["name"], allow)
    except ConfigError:
        return {}  # `build` reports it
    options = {f.name: f for f in dataclasses.fields(component)}
    if field not in options:
        return {}
    required = options[field].default is dataclasses.MISSING and options[field].default_factory is dataclasses.MISSING
    if value is None and required and not faults.found:
        faults.found.append(f"rewards: objective '{spec['name']}' needs at least one reward.")
    return {field: value}
