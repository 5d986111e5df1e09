"""Run files: YAML, read strictly, overridden from the command line, every fault reported at once.

    adapter:   {name: sd3, model: stabilityai/stable-diffusion-3.5-medium}
    policy:    {name: flow, num_inference_steps: 10}
    rewards:   {alignment: {name: clip, weight: 1.0}}
    objective: {name: grpo, group_size: 16}
    data:      {name: prompts, path: prompts.txt}
    trainer:   {steps: 200, lr: 1.0e-4}

A component's keys besides `name` are the fields of its class. Two sections are optional: `combine` (how several rewards
become one) and `evaluation` (held-out prompts and judges).
"""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml

from mmalign.core.errors import ConfigError, as_list, did_you_mean, shown
from mmalign.core.options import (
    AtLeastOne,
    Count,
    NotNegative,
    Positive,
    PositiveShare,
    Share,
    ShareBelowOne,
    refuse,
    requires,
)
from mmalign.core.registry import attempted
from mmalign.core.renamed import with_new_names
from mmalign.core.yaml_text import NotYAML, parse_yaml, read_yaml

Spec = dict[str, Any]
BITSANDBYTES = {"adamw8bit": "AdamW8bit", "paged_adamw": "PagedAdamW", "lion": "Lion"}  # its classes, by our names
T = TypeVar("T")


@dataclass
class Trainer:
    """How long, how fast and in how small pieces to train.

    Args:
        steps: rounds of collect and update.
        prompts_per_step: prompts (or preferences) of one step over all processes.
        minibatches: optimizer updates per collected batch.
        micro_batch_size: rows per forward-backward pass (0: all); a memory knob, the gradient does not change.
        steps_per_pass: policy steps per forward-backward pass (0: all; "auto": one where each step is a forward of its
            own, as with diffusion, else all); a memory knob, the gradient does not change.
        lr: learning rate after warm-up.
        lr_end: share of `lr` left at the last update, reached along half a cosine after warm-up (1: constant), or along
            `schedule`.
        schedule: how the rate falls to `lr_end`: "cosine", "linear", "wsd" (constant, then along half a cosine over the
            last `decay` of the updates), or "constant"; None is cosine, or constant where `lr_end` is 1.
        decay: share of the updates after warm-up over which "wsd" falls.
        warmup: updates over which the rate rises linearly from 0.
        optimizer: torch's "adamw" and "muon" (of matrices, its rate scaled to be AdamW's), transformers' "adafactor"
            (without momentum), bitsandbytes' "adamw8bit", "paged_adamw" and "lion" (the extra `optimizers`).
        weight_decay: the optimizer's, decoupled from the gradient.
        betas: AdamW's, of any kind, and Lion's.
        eps: AdamW's, of any kind.
        max_grad_norm: the gradient's norm is clipped to it (0: not clipped, still logged). Losses are of a whole step's
            log-prob, so of pictures and sounds it is D times what papers give that average over a step's D dimensions.
        ema: decay of an exponential moving average of the weights (0: none); evaluation and the final save use it.
        seed: the one seed all random streams derive from.
        save_every: steps between checkpoints (0: one after ten minutes, more rarely where writing one takes long); the
            last step always leaves one.
        keep: newest checkpoints kept, at least 1.
        preview_every: steps between sample sheets (0: none).
        evaluate_every: steps between held-out evaluations (0: only before and after).
        keep_best: a judge or reward ("": none); the checkpoint at which it was highest stays, as RUN@best.
        alarms: what happens when the run's numbers warn of something (a judge falls while the reward rises, outputs
            drift or become alike, the KL jumps, groups are dead): "say" it, "stop" with a checkpoint, or "none".
        stop_on_failed_scores: share of failed rows of one reward, over its recent calls, that ends the run.
        stop_on_idle_steps: steps in a row without an update that end the run (0: none do): outputs that all score the
            same. Where no output has a score, or the gradient is not finite, 3 end it.
        too_long: rows that a language model's context cannot hold: "refuse" them all at the start, "skip" them, or
            "cut" the first words of their prompts.
        other_data: resume though the rows to train on are others than before: from a new order of them.
        tracker: where curves go besides metrics.jsonl.
    """

    also_called: ClassVar[dict[str, str]] = {
        "learning_rate": "lr",
        "batch_size": "prompts_per_step",
        "max_steps": "steps",
        "num_steps": "steps",
        "grad_clip": "max_grad_norm",
        "ema_decay": "ema",
        "save_steps": "save_every",
        "save_total_limit": "keep",
        "per_device_train_batch_size": "micro_batch_size",
        "gradient_accumulation_steps": "micro_batch_size (how many at once; the gradient is that of the whole batch)",
    }

    steps: AtLeastOne = 100
    prompts_per_step: AtLeastOne = 8
    minibatches: AtLeastOne = 1
    micro_batch_size: Count = 0
    steps_per_pass: Count | Literal["auto"] = "auto"
    lr: Positive = 1e-4
    lr_end: Share = 1.0
    schedule: Literal["constant", "cosine", "linear", "wsd"] | None = None
    decay: PositiveShare = 0.2
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw", "adafactor", "muon", "lion"] = "adamw"
    warmup: Count = 0
    weight_decay: NotNegative = 0.0
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    eps: Positive = 1e-8
    max_grad_norm: NotNegative = 1.0
    ema: ShareBelowOne = 0.0
    seed: Count = 0
    save_every: Count = 0
    keep: AtLeastOne = 2
    preview_every: Count = 0
    evaluate_every: Count = 0
    keep_best: str = ""
    alarms: Literal["say", "stop", "none"] = "say"
    stop_on_failed_scores: Share = 0.5
    stop_on_idle_steps: Count = 20
    too_long: Literal["refuse", "skip", "cut"] = "refuse"
    other_data: bool = False
    tracker: Literal["none", "trackio", "wandb", "tensorboard"] = "none"

    def __post_init__(self) -> None:
        refuse(
            requires(
                self.schedule in ("cosine", "linear", "wsd"),
                self.lr_end < 1,
                f"lr_end: schedule {self.schedule} falls to it, and it is 1; set the share of lr that is left at the "
                "end (0 for none).",
            ),
            requires(
                self.schedule == "constant",
                self.lr_end == 1,
                f"lr_end: {self.lr_end:g}, but schedule is constant; leave one of them out.",
            ),
        )


@dataclass
class Evaluation:
    """What is measured on held-out prompts, before, during and after.

    Args:
        prompts: a file of prompts, or "" for the data's own held-out part.
        count: prompts used (0: all).
        judges: rewards never trained on, by name, each a component spec; `role: verifier` marks the ground truth.
        rows: rows per generation call.
        keep: the first pictures or sounds that are kept, to be looked at and voted on; texts are all kept.
        seed: of the evaluation's own noise.
    """

    prompts: str = ""
    count: Count = 64
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: AtLeastOne = 64
    keep: AtLeastOne = 16
    seed: Count = 1234


@dataclass
class RunFile:
    """A run file after parsing: component sections still as specs, typed sections checked. `source` is the file.

    Relative paths in it start at `base`, by default the file's own folder; resolved files name it, so that they mean
    the same wherever they are copied.
    """

    adapter: Spec
    policy: Spec
    rewards: dict[str, Spec]
    objective: Spec
    data: Spec
    trainer: Trainer = field(default_factory=Trainer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    combine: Spec = field(default_factory=lambda: {"name": "weighted_sum"})
    base: str = ""
    source: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Where relative paths start."""
        return Path(self.base) if self.base else self.source.parent if self.source else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `run.yaml` holds it."""
        plain = dataclasses.asdict(self)
        plain.pop("source")
        if not self.base:
            plain.pop("base")
        plain["trainer"]["betas"] = list(plain["trainer"]["betas"])
        return plain


COMPONENTS = ("adapter", "policy", "objective", "data")


def is_change(word: str) -> bool:
    """Is a word of a command line `key.path=value`, and not a file with a "=" in its name?"""
    return "=" in word and not os.path.isfile(word)  # noqa: PTH113 (a Path refuses words that are too long for one)


def override(raw: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Apply `key.path=value` changes (values are YAML); a path may name a new key, strict checks follow."""
    faults = []
    for change in as_list(changes, "changes", '["trainer.steps=50"]'):
        if not isinstance(change, str):
            faults.append(f"override {shown(change, 80)}: write a text, key.path=value.")
            continue
        path, eq, text = change.partition("=")
        if not eq or not path:
            faults.append(f"override '{change[:200]}': write key.path=value.")
            continue
        *parents, last = path.split(".")
        place: Any = raw
        for key in parents:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            faults.append(f"override '{change[:200]}': '{'.'.join(parents)[:80]}' is not a section.")
            continue
        try:
            place[last] = parse_yaml(text)
        except NotYAML as error:
            faults.append(f"override '{change[:200]}': not valid YAML: {error}.")
    if faults:
        raise ConfigError(faults)
    return raw


@dataclass
class Draft:
    """A run file as far as it can be read.

    Args:
        file: what could be read; a section that could not stands empty, an option that could not at its default.
        faults: everything that is wrong so far, each with its place.
        broken: the sections and rewards ("objective", "rewards.clip") that cannot be judged further.
    """

    file: RunFile
    faults: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)


def load(path: Path | str, changes: Iterable[str] = ()) -> RunFile:
    """Read, override and check the shape of a run file; component options are checked by `mmalign.run.build`."""
    return _whole(draft(path, changes))


def draft(path: Path | str, changes: Iterable[str] = ()) -> Draft:
    """Read and override a run file, with what is wrong in its shape.

    Raises:
        ConfigError: what cannot be read at all: no file, no YAML, no mapping, changes that are none.
    """
    if isinstance(path, Mapping):
        raise ConfigError(
            "name a run file by its path, or make one of the mapping: mmalign.core.config.parse(mapping)."
        )
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such run file.")
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a run file is a mapping of sections: {', '.join(sections())}.")
    raw, changes, twice = with_new_names(raw, as_list(changes, "changes", '["trainer.steps=50"]'))
    read = drafted(override(raw, changes), path)
    read.faults[:0] = twice
    return read


def sections() -> list[str]:
    """Return the section names of a run file."""
    return [f.name for f in dataclasses.fields(RunFile) if f.name != "source"]


def parse(raw: Mapping[str, Any], source: Path | None = None) -> RunFile:
    """Check sections and typed values of a raw run file; every fault at once."""
    return _whole(drafted(raw, source))


def _whole(read: Draft) -> RunFile:
    if read.faults:
        where = f"{read.file.source}: " if read.file.source else ""
        raise ConfigError([where + fault for fault in read.faults])
    return read.file


def drafted(raw: Mapping[str, Any], source: Path | None = None) -> Draft:
    """Check sections and typed values of a raw run file, and keep what is right of it."""
    raw, _, faults = with_new_names(raw)
    faults += [f"{key}: unknown section.{did_you_mean(str(key), sections())}" for key in raw if key not in sections()]
    faults += [f"{key}: missing section." for key in COMPONENTS if key not in raw]
    broken = {key for key in COMPONENTS if key not in raw}
    parts: dict[str, Any] = {key: {} for key in COMPONENTS}
    for key in (*COMPONENTS, "combine"):
        if key not in raw:
            continue
        if fault := _spec_fault(raw[key], key, "{name: …}"):
            faults.append(fault)
            broken.add(key)
        else:
            parts[key] = dict(raw[key])
    parts["rewards"] = _named(raw.get("rewards", {}), "rewards", "{alignment: {name: clip}}", faults, broken)
    if not isinstance(base := raw.get("base", ""), str):
        faults.append(f"base: write a folder (got {shown(base)}).")
        base = ""
    for key, kind in (("trainer", Trainer), ("evaluation", Evaluation)):
        parts[key] = _typed(kind, raw.get(key), key, faults)
    judges = parts["evaluation"].judges
    parts["evaluation"].judges = _named(judges, "evaluation.judges", "{truth: {name: verifier}}", faults, broken)
    return Draft(RunFile(**parts, base=base, source=source), faults, broken)


def _spec_fault(spec: object, at: str, example: str) -> str:
    if isinstance(spec, dict) and isinstance(spec.get("name"), str) and spec["name"]:
        return ""
    return f"{at}: write a mapping with a `name`, e.g. {example} (got {shown(spec)})."


def _named(raw: object, at: str, example: str, faults: list[str], broken: set[str]) -> dict[str, Spec]:
    """The component specs of a mapping by name; those that are none go to `faults` and `broken`."""
    if not isinstance(raw, dict):
        faults.append(f"{at}: write a mapping of named rewards, e.g. {example} (got {shown(raw)}).")
        broken.add(at)
        return {}
    specs = {}
    for name, spec in raw.items():
        if fault := _spec_fault(spec, f"{at}.{name}", "{name: clip}"):
            faults.append(fault)
            broken.add(f"{at}.{name}")
        else:
            specs[str(name)] = dict(spec)
    return specs


def _typed(kind: type[T], raw: object, at: str, faults: list[str]) -> T:
    """The section `at` as its class; what is wrong in it goes to `faults`, and its default is taken instead."""
    if raw is not None and not isinstance(raw, dict):
        faults.append(f"{at}: write a mapping (got {shown(raw)}).")
        return kind()
    made, section_faults = attempted(kind, raw or {}, at)
    faults += section_faults
    right = {
        key: value for key, value in (raw or {}).items() if not any(f.startswith(f"{at}.{key}") for f in section_faults)
    }
    return made or attempted(kind, right, at)[0] or kind()


def dump(run: RunFile) -> str:
    """Return the YAML text of a resolved run file; `load(dump(run))` is `run`."""
    return yaml.safe_dump(run.to_dict(), sort_keys=False, allow_unicode=True, width=110)
