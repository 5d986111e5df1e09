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
import math
import os.path
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.registry import construct

Spec = dict[str, Any]


@dataclass
class Trainer:
    """How long, how fast and in how small pieces to train.

    Args:
        steps: rounds of collect and update.
        batch: prompts (or preference rows) per step over all processes.
        minibatches: optimizer updates per collected batch.
        rows: rows per forward-backward pass (0: all); a memory knob, the gradient does not change.
        spans: policy steps per forward-backward pass (0: all); a memory knob, the gradient does not change.
        lr: learning rate after warm-up.
        lr_end: share of `lr` left at the last update, reached along half a cosine after warm-up (1: constant).
        warmup: updates over which the rate rises linearly from 0.
        weight_decay: AdamW's.
        betas: AdamW's.
        max_grad_norm: the gradient's norm is clipped to it (0: not clipped, still logged).
        ema: decay of an exponential moving average of the weights (0: none); evaluation and the final save use it.
        seed: the one seed all random streams derive from.
        save_every: steps between checkpoints (0: only the last).
        keep: newest checkpoints kept, at least 1.
        preview_every: steps between sample sheets (0: none).
        evaluate_every: steps between held-out evaluations (0: only before and after).
        stop_on_failed_scores: share of failed rows of one reward, over its recent calls, that ends the run.
        tracker: where curves go besides metrics.jsonl.
    """

    steps: int = 100
    batch: int = 8
    minibatches: int = 1
    rows: int = 0
    spans: int = 0
    lr: float = 1e-4
    lr_end: float = 1.0
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    ema: float = 0.0
    seed: int = 0
    save_every: int = 0
    keep: int = 2
    preview_every: int = 0
    evaluate_every: int = 0
    stop_on_failed_scores: float = 0.5
    tracker: Literal["none", "trackio", "wandb", "tensorboard"] = "none"

    def __post_init__(self) -> None:
        counts = ("rows", "spans", "warmup", "save_every", "preview_every", "evaluate_every")
        refuse(
            outside(self, ("steps", "batch", "minibatches", "keep"), "at least 1", lambda value: value >= 1),
            outside(self, ("lr",), "above 0 and finite", lambda value: 0 < value < math.inf),
            outside(self, (*counts, "max_grad_norm", "weight_decay"), "0 or above", lambda value: value >= 0),
            outside(self, ("lr_end", "stop_on_failed_scores"), "in [0, 1]", lambda value: 0 <= value <= 1),
            outside(self, ("ema",), "in [0, 1)", lambda value: 0 <= value < 1),
            outside(self, ("betas",), "in [0, 1)", lambda pair: all(0 <= beta < 1 for beta in pair)),
        )


@dataclass
class Evaluation:
    """What is measured on held-out prompts, before, during and after.

    Args:
        prompts: a file of prompts, or "" for the data's own held-out part.
        count: prompts used (0: all).
        judges: rewards never trained on, by name, each a component spec; `role: verifier` marks the ground truth.
        rows: rows per generation call.
        seed: of the evaluation's own noise.
    """

    prompts: str = ""
    count: int = 64
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: int = 64
    seed: int = 1234

    def __post_init__(self) -> None:
        refuse(
            outside(self, ("count",), "0 or above", lambda value: value >= 0),
            outside(self, ("rows",), "at least 1", lambda value: value >= 1),
        )


def outside(options: Any, names: Iterable[str], range: str, within: Callable[[Any], bool]) -> list[str]:
    """What to say of each option of `names` that is not `within` the `range`; NaN is within none."""
    values = {name: getattr(options, name) for name in names}
    return [f"{name} must be {range}, not {value}" for name, value in values.items() if not within(value)]


def refuse(*faults: list[str]) -> None:
    """Raise ValueError with all of `faults`, if there are any."""
    if found := [fault for group in faults for fault in group]:
        raise ValueError("; ".join(found))


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


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a key that is written twice is a fault: the first would be lost without a word."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"'{key.value}' is written twice in one section"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node


def parse_yaml(text: str) -> Any:
    """The plain data that `text` says; raises `yaml.YAMLError`."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_yaml(path: Path) -> Any:
    """The file's content; ConfigError with line and column if it is not YAML."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', error)}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None


def is_change(word: str) -> bool:
    """Is a word of a command line `key.path=value`, and not a file with a "=" in its name?"""
    return "=" in word and not os.path.isfile(word)  # noqa: PTH113 (a Path refuses words that are too long for one)


def override(raw: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Apply `key.path=value` changes (values are YAML); a path may name a new key, strict checks follow."""
    faults = []
    for change in changes:
        path, eq, text = change.partition("=")
        if not eq or not path:
            faults.append(f"override '{change}': write key.path=value.")
            continue
        *parents, last = path.split(".")
        place: Any = raw
        for key in parents:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            faults.append(f"override '{change}': '{'.'.join(parents)}' is not a section.")
            continue
        try:
            place[last] = parse_yaml(text)
        except yaml.YAMLError as error:
            faults.append(f"override '{change}': not valid YAML: {getattr(error, 'problem', None) or error}.")
    if faults:
        raise ConfigError(faults)
    return raw


def load(path: Path | str, changes: Iterable[str] = ()) -> RunFile:
    """Read, override and check the shape of a run file; component options are checked by `mmalign.run.build`."""
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such run file.")
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a run file is a mapping of sections: {', '.join(sections())}.")
    return parse(override(raw, changes), source=path)


def sections() -> list[str]:
    """The section names of a run file."""
    return [f.name for f in dataclasses.fields(RunFile) if f.name != "source"]


def parse(raw: Mapping[str, Any], source: Path | None = None) -> RunFile:
    """Check sections and typed values of a raw run file; every fault at once."""
    faults = [f"{key}: unknown section.{did_you_mean(str(key), sections())}" for key in raw if key not in sections()]
    faults += [f"{key}: missing section." for key in (*COMPONENTS, "rewards") if key not in raw and key != "rewards"]
    for key in (*COMPONENTS, "combine"):
        if key in raw and not (isinstance(raw[key], dict) and isinstance(raw[key].get("name"), str)):
            faults.append(f"{key}: write a mapping with a `name`, e.g. {{name: …}} (got {raw[key]!r}).")
    faults += _reward_faults(raw.get("rewards", {}))
    if not isinstance(raw.get("base", ""), str):
        faults.append(f"base: write a folder (got {raw['base']!r}).")
    typed: dict[str, Any] = {}
    for key, kind in (("trainer", Trainer), ("evaluation", Evaluation)):
        try:
            typed[key] = construct(kind, raw.get(key) or {}, key)
        except ConfigError as error:
            faults += error.faults
        except TypeError:
            faults.append(f"{key}: write a mapping (got {raw[key]!r}).")
    if faults:
        where = f"{source}: " if source else ""
        raise ConfigError([where + fault for fault in faults])
    components: dict[str, Any] = {key: dict(raw[key]) for key in (*COMPONENTS, "combine") if key in raw}
    rewards = {str(name): dict(spec) for name, spec in raw.get("rewards", {}).items()}
    return RunFile(**components, rewards=rewards, **typed, base=raw.get("base", ""), source=source)


def _reward_faults(raw: Any) -> list[str]:
    if not isinstance(raw, dict):
        return [f"rewards: write a mapping of named rewards, e.g. {{alignment: {{name: clip}}}} (got {raw!r})."]
    return [
        f"rewards.{name}: write a mapping with a `name` (got {spec!r})."
        for name, spec in raw.items()
        if not (isinstance(spec, dict) and isinstance(spec.get("name"), str))
    ]


def dump(run: RunFile) -> str:
    """The YAML text of a resolved run file; `load(dump(run))` is `run`."""
    return yaml.safe_dump(run.to_dict(), sort_keys=False, allow_unicode=True, width=110)
