"""From a run file to its parts. Everything is checked, all faults at once, before any weight is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mmalign.core.capabilities import judges_only
from mmalign.core.config import Draft, RunFile, Spec, sections
from mmalign.core.errors import ConfigError, MissingExtra, MmalignError, all_faults, did_you_mean, shown, together
from mmalign.core.protocols import Adapter, AnyPolicy, DataSource, Stateful
from mmalign.core.registry import construct
from mmalign.data.intake import FittedRows, refused
from mmalign.data.mixed_rows import MixedRows
from mmalign.data.row_kinds import prompts_of
from mmalign.data.sampled import sampled
from mmalign.data.view_rows import ViewRows
from mmalign.run.checks import Inspection
from mmalign.run.checks.shapes import fitted_rows
from mmalign.run.defaults import slot_options, with_defaults
from mmalign.run.lengths import evaluation_lengths, reader_of, training_lengths
from mmalign.run.members import build_whole
from mmalign.run.references import anchored
from mmalign.run.registries import REGISTRIES

T = TypeVar("T")
MEASURED = ("judge", "verifier")  # roles of rewards that are not trained on
SECTIONS = {"adapter": "adapters", "policy": "policies", "objective": "objectives", "data": "data"}


@dataclass
class Parts:
    """The built components of one run; `load` brings weights in."""

    file: RunFile
    adapter: Adapter
    policy: AnyPolicy
    reward: Any
    objective: Any
    source: DataSource
    judges: dict[str, Any]

    def load(self, device: str | None = None) -> None:
        """Load the generator's weights, on `device` unless its options name one (rewards load theirs on first use)."""
        self.adapter.load(device)

    def prepare(self, judges: bool = True) -> None:
        """Load what the rewards, and the `judges`, need, before the generator's weights take their time.

        Raises:
            MmalignError: what cannot be loaded, all of it at once.
        """
        from mmalign.rewards import Guarded
        from mmalign.rewards.engine.foreign_code import prepare_all
        from mmalign.rewards.engine.traits import RewardTraits

        slots = self.reward.slots if self.reward is not None else {}
        components = {f"rewards.{name}": self.reward.guarded(name) for name in slots}
        measured = self.judges if judges else {}
        with ExitStack() as stack:
            for name, judge in measured.items():
                alone = Guarded(name, judge, monitor=True) if RewardTraits.of(judge).isolated else judge
                components[f"evaluation.judges.{name}"] = alone
                if alone is not judge:
                    stack.callback(alone.close)
            prepare_all(components)

    def stateful(self) -> dict[str, Any]:
        """Return what a checkpoint must hold besides weights: parts with a state of their own."""
        named = {"policy": self.policy, "reward": self.reward, "objective": self.objective}
        return {name: part for name, part in named.items() if isinstance(part, Stateful)}

    def resolved(self) -> RunFile:
        """Return the run file with every default filled in, so that it means the same from every folder."""
        return anchored(self.filled(), self.source)

    def filled(self) -> RunFile:
        """Return the run file with every default filled in, and its paths as they were written."""
        rewards = {
            name: {**with_defaults(spec, slot.reward), **slot_options(slot)}
            for (name, spec), slot in zip(self.file.rewards.items(), self.slots(), strict=True)
        }
        judges = {
            name: with_defaults(spec, self.judges[name]) | {k: v for k, v in spec.items() if k == "role"}
            for name, spec in self.file.evaluation.judges.items()
        }
        folder = self.file.folder
        return replace(
            self.file,
            base=str(folder.absolute()) if folder else "",
            adapter=with_defaults(self.file.adapter, self.adapter),
            policy=with_defaults(self.file.policy, self.policy),
            rewards=rewards,
            objective=with_defaults(self.file.objective, self.objective),
            data=with_defaults(self.file.data, self.source),
            combine=with_defaults(self.file.combine, getattr(self.reward, "combination", None)),
            evaluation=replace(self.file.evaluation, judges=judges),
        )

    def slots(self) -> list[Any]:
        """Return the reward slots in the order of the run file."""
        return list(self.reward.slots.values()) if self.reward is not None else []


class Faults:
    """Runs builders one by one and keeps what they complain about."""

    def __init__(self) -> None:
        self.errors: list[MmalignError] = []

    def attempt(self, make: Callable[[], T]) -> T | None:
        """`make()`, or None with its faults remembered."""
        try:
            return make()
        except MmalignError as error:
            self.errors.append(error)
            return None

    def stop_if_any(self) -> None:
        """Raise everything found."""
        if self.errors:
            raise together(self.errors)


def build(run: RunFile | Draft, allow: Collection[str] = (), training: bool = True) -> Parts:
    """Make every component of `run` without loading weights, and see whether they fit; `training` or only measuring.

    Raises:
        ConfigError: unknown names, options and wrong values, all at once.
        CapabilityError: components that are right by themselves and cannot work together.
    """
    return inspected(run, allow, ["fit"], training)[0]


def examine(
    run: RunFile | Draft,
    allow: Collection[str] = (),
    training: bool = True,
    judges: Mapping[str, Any] | None = None,
) -> tuple[Parts, list[Any]]:
    """Everything that can be known of a run before anything is loaded: its parts, and the prompts it is measured on.

    Sections, components, their fit, packages, rows and files: see `mmalign.run.checks`. `judges` are such by name that
    the run file does not know, and measure beside its own.

    Raises:
        ConfigError: every fault at once, each with its place.
        CapabilityError, DataError, MissingExtra: where all faults are of that kind.
    """
    parts, inspection = inspected(run, allow, [], training, judges)
    return parts, measured_on(fitting_questions(parts, inspection.part("questions")), parts.policy)


def held_out(parts: Parts) -> list[Any]:
    """The prompts of the run's evaluation, [] if it names none; the preferences themselves for a policy that judges."""
    from mmalign.run.checks.rows import questions

    return measured_on(fitting_questions(parts, questions(parts.file, parts.source)), parts.policy)


def fitting_questions(parts: Parts, rows: Sequence[Any]) -> Sequence[Any]:
    """Return the rows to measure on, without those that `trainer.too_long` leaves out."""
    if parts.file.trainer.too_long == "refuse" or (reader := reader_of(parts.adapter)) is None:
        return rows
    return evaluation_lengths(parts.file, parts.policy, reader, rows).rows


def training_rows(parts: Parts, fetch: bool = True) -> Sequence[Any]:
    """Return the rows to train on, given media as the run makes them, without those that `trainer.too_long` leaves out.

    Raises:
        DataError: rows of a model that was not on this machine when everything else was checked.
    """
    rows, seed = parts.source.training_items(), parts.file.trainer.seed
    items = fitted_rows(parts.adapter, parts.source, rows, seed, "fetch" if fetch else "kept")
    if isinstance(items, FittedRows):
        if faults := list(refused(items)):  # of a model that was not here when everything else was checked
            raise all_faults(faults)
        return items
    known = reader_of(parts.adapter)
    how, reader = parts.file.trainer.too_long, known or (reader_of(parts.adapter, fetch=True) if fetch else None)
    if reader is None or (known is not None and how == "refuse"):
        return items
    selection = training_lengths(
        parts.file, parts.policy, parts.objective, reader, sampled(items) if how == "refuse" else items
    )
    if known is None:
        selection.report(how, "to train on")
    if selection.long and isinstance(items, MixedRows | ViewRows):
        return items.keeping(selection.fitting, selection.shortened)
    return selection.rows if selection.long else items


def measured_on(questions: Sequence[Any], policy: AnyPolicy) -> list[Any]:
    """Return the held-out rows as evaluation takes them: whole rows for a scorer, else their prompts."""
    return list(questions) if judges_only(policy) else list(prompts_of(questions))


def inspected(
    run: RunFile | Draft,
    allow: Collection[str],
    stages: Collection[str],
    training: bool,
    own: Mapping[str, Any] | None = None,
) -> tuple[Parts, Inspection]:
    """The parts of a run, and what the checks of `stages` (all, if it is empty) made of it; raises what they found."""
    draft = run if isinstance(run, Draft) else Draft(run)
    inspection = Assembly(draft, allow).made()
    add_judges(inspection, own or {})
    inspection.run(stages, training)
    if inspection.faults:
        raise error_of(inspection, draft.file.source)
    judges = {name.removeprefix("evaluation.judges."): judge for name, judge in inspection.known["judges"].items()}
    named = {f.name: inspection.known[f.name] for f in dataclasses.fields(Parts)}
    return Parts(**{**named, "judges": judges}), inspection


def add_judges(inspection: Inspection, own: Mapping[str, Any]) -> None:
    """Add judges that are given as objects to those of the run file; a name that is taken is a fault."""
    run = inspection.known["file"]
    for name, judge in own.items():
        at = f"evaluation.judges.{name}"
        if name in run.rewards or name in run.evaluation.judges:
            inspection.faults.append(
                ConfigError(f"{at}: a reward or judge of the run file has this name; give another.")
            )
        elif isinstance(judge, type) or not hasattr(judge, "modalities"):
            inspection.faults.append(ConfigError(f"{at}: a judge is a reward, as my_rule() is; found {shown(judge)}."))
        else:
            inspection.known["judges"][at] = judge


def error_of(inspection: Inspection, source: Path | None) -> MmalignError:
    """One error of all faults, each behind the name of the run file, and at the end what could not be judged."""
    error = together(inspection.faults)
    if isinstance(error, ConfigError):
        named = [f"{source}: {fault}" if source and _of_file(fault) else fault for fault in error.faults]
        return ConfigError([*named, *inspection.left_out()])
    return (
        together([error, type(error)("\n".join(inspection.left_out()))])
        if inspection.unjudged and _plain(error)
        else error
    )


def _plain(error: MmalignError) -> bool:
    """Is the error made of its message alone?"""
    return not isinstance(error, MissingExtra)


def _of_file(fault: str) -> bool:
    """Does a fault begin with a section of the run file, and not with a file of rows?"""
    return fault.partition(":")[0].partition(".")[0] in sections()


class StandIn:
    """In place of a reward that could not be made, so that the objective's own options can still be judged."""

    modalities = frozenset({"text", "image", "audio"})
    range = (0.0, 1.0)
    differentiable = True


class Assembly:
    """Makes every component of a run file that can be made, and keeps the faults of those that cannot."""

    def __init__(self, draft: Draft, allow: Collection[str]) -> None:
        self.draft, self.run, self.allow = draft, draft.file, allow
        self.faults = Faults()
        self.faults.errors += [ConfigError(fault) for fault in draft.faults]
        self.classes = self._classes()

    def made(self) -> Inspection:
        """Return the parts; one that is not among them has a fault."""
        run, judged = self.run, "evaluation.judges"
        known: dict[str, Any] = {"file": run, "classes": self.classes}
        rewards = self._each("rewards", run.rewards, lambda n, s: build_slot(f"rewards.{n}", s, self.allow))
        if not any(place.partition(".")[0] == "rewards" for place in self.draft.broken) and len(rewards) == len(
            run.rewards
        ):
            slots = dict(zip(run.rewards, rewards.values(), strict=True))
            share = run.trainer.stop_on_failed_scores
            self._keep(known, "reward", lambda: mixed(slots, run.combine, share, self.allow) if slots else None)
        adapter = self._keep(known, "adapter", lambda: self._component("adapter"))
        self._keep(known, "policy", lambda: self._component("policy", adapter=adapter))
        if "adapter" not in known:
            known.pop("policy", None)  # its options were judged; what it makes is not known
        self._keep(known, "objective", lambda: self._component("objective", reward=self._given_reward(known)))
        self._keep(known, "source", lambda: self._component("data", relative_to=run.folder))
        judges = self._each(judged, run.evaluation.judges, lambda n, s: build_judge(n, s, self.allow))
        known |= {"rewards": {place: slot.reward for place, slot in rewards.items()}, "judges": judges}
        return Inspection(known, self.faults.errors)

    def _classes(self) -> dict[str, type[Any]]:
        """What the names of sections resolve to; a name that is none is told when it is built."""
        classes = {}
        for section, kind in SECTIONS.items():
            try:
                classes[section] = REGISTRIES[kind].get(getattr(self.run, section).get("name", ""), self.allow)
            except MmalignError:
                continue
        return classes

    def _component(self, section: str, **arguments: Any) -> Any:
        fields = {f.name for f in dataclasses.fields(self.classes[section])} if section in self.classes else set()
        beside = {name: value for name, value in arguments.items() if name in fields}
        return build_whole(SECTIONS[section], getattr(self.run, section), section, self.allow, **beside)

    def _keep(self, known: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
        """`known[name] = make()`, unless its section is broken, or has a fault."""
        if {"source": "data"}.get(name, name) in self.draft.broken:
            return None
        seen = len(self.faults.errors)
        made = self.faults.attempt(make)
        if len(self.faults.errors) == seen:
            known[name] = made
        return made

    def _each(self, at: str, specs: Mapping[str, Spec], make: Callable[[str, Spec], T]) -> dict[str, T]:
        """Those of named rewards that can be made, by their place in the run file."""
        made = {f"{at}.{name}": self.faults.attempt(lambda n=name, s=spec: make(n, s)) for name, spec in specs.items()}  # type: ignore[misc]
        return {place: each for place, each in made.items() if each is not None}

    def _given_reward(self, known: Mapping[str, Any]) -> Any:
        """The reward, or what stands for it where it has a fault, or is missing and needed."""
        if known.get("reward", StandIn) is not None:
            return known.get("reward", StandIn())
        options = (
            {f.name: f for f in dataclasses.fields(self.classes["objective"])} if "objective" in self.classes else {}
        )
        if "reward" not in options or not required(options["reward"]):
            return None
        fault = f"rewards: objective '{self.run.objective['name']}' needs at least one reward."
        self.faults.errors.append(ConfigError(fault))
        return StandIn()


def required(option: dataclasses.Field[Any]) -> bool:
    """Does a run file have to set the option, because it has no default?"""
    return option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING


def mixed(slots: Mapping[str, Any], combine: Spec, failed_share: float, allow: Collection[str]) -> Any:
    """Make one reward (a `Mix`) of built slots and the section `combine` of the run file."""
    from mmalign.rewards import Mix

    combination = build_whole("combinations", combine, "combine", allow)
    return Mix(slots=dict(slots), combination=combination, failed_share=failed_share)


def build_slot(at: str, spec: Spec, allow: Collection[str] = ()) -> Any:
    """Return the reward at `at` in its slot; the options of both at once."""
    from mmalign.rewards import Slot

    own = sorted({f.name for f in dataclasses.fields(Slot)} - {"reward"})
    faults = Faults()
    made = faults.attempt(lambda: build_whole("rewards", {k: v for k, v in spec.items() if k not in own}, at, allow))
    slot = faults.attempt(lambda: construct(Slot, {k: v for k, v in spec.items() if k in own}, at, reward=made))
    faults.errors = [
        ConfigError([_or_of_slot(fault, f"{at}.", own) for fault in error.faults])
        if isinstance(error, ConfigError)
        else error
        for error in faults.errors
    ]
    faults.stop_if_any()
    return slot


def _or_of_slot(fault: str, at: str, own: Sequence[str]) -> str:
    """An option that the reward does not know may be a misspelt one of its slot."""
    key, _, sentence = fault.removeprefix(at).partition(": ")
    if "." in key or not sentence.startswith("unknown option."):
        return fault
    return f"{fault} Of every reward: {', '.join(own)}.{did_you_mean(key, own)}"


def build_judge(name: str, spec: Spec, allow: Collection[str] = ()) -> Any:
    """Build a reward that only measures, from its section in `evaluation.judges`; raises ConfigError."""
    if (role := spec.get("role", "judge")) not in MEASURED:
        raise ConfigError(f"evaluation.judges.{name}.role: {shown(role)}; there is {', '.join(MEASURED)}.")
    options = {k: v for k, v in spec.items() if k != "role"}
    return build_whole("rewards", options, f"evaluation.judges.{name}", allow)
