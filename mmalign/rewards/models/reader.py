"""A frozen generator that reads given outputs: log p of each of their steps, under noise that readers share.

A reader is written as a text or as two sections of a run file:

| written | the reader |
|---|---|
| a run directory, RUN@STEP | what the run trained, by its newest or that checkpoint: a LoRA, or all weights |
| another folder, a Hub id | a causal language model of transformers |
| {adapter: {name: …}, policy: {name: …}} | any generator of texts, pictures or sounds |

What two readers say of one output may be subtracted only under one probe (`shared_probe`): the noise of a denoising
error is larger than the difference of two checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.capabilities import offers
from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.files import local_path
from mmalign.core.protocols import DensityPolicy, JointDensityPolicy, Probe
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import OutputOfKind, Prompt, Rollout, groups, join
from mmalign.loading.exclusive import alone
from mmalign.loading.trained import local_weights
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.frozen import beside_digest, weights_digest

Make = Callable[..., Any]
ReaderSpec = str | dict[str, Any]

__all__ = ["Make", "Reader", "ReaderSpec", "same_steps", "shared_probe"]


class Reader:
    """The generator that `spec` names, at the option `at`; its weights are loaded at the first use.

    Raises:
        ConfigError: a spec that names no generator, or one whose outputs have no density.
    """

    def __init__(self, make: Make | None, spec: ReaderSpec, at: str) -> None:
        if make is None:
            raise ConfigError(f"{at}: is built from a run file; name it there, or use mmalign.load_reward.")
        self.at, self.spec = at, spec
        run, weights = _run_of(spec) or (None, None)
        self._weights: Path | None = weights
        sections = _sections(spec, run, at)
        self.adapter = make("adapters", sections["adapter"], f"{at}.adapter")
        self.policy: DensityPolicy = make("policies", sections["policy"], f"{at}.policy", adapter=self.adapter)
        if not offers(type(self.policy), DensityPolicy):
            raise ConfigError(f"{at}.policy: '{sections['policy']['name']}' gives outputs no log-prob; name another.")

    @cached_property
    def loaded(self) -> DensityPolicy:
        """The policy with its weights."""
        with alone(), preserve_rng_state():
            self.adapter.load()
            if self._weights is not None:
                self.adapter.restore(self._weights)
        return self.policy

    def fingerprint(self) -> str:
        """The digest of the weights, configuration and tokenizer that are local; of the Hub, the model's name."""
        names = [str(self._weights) if self._weights else "", str(getattr(self.adapter, "model", ""))]
        begun = [file for file, _ in self.adapter.start_files()] if hasattr(self.adapter, "start_files") else []
        folders = [local_path(name) for name in names if name]
        files = sorted(file for folder in folders if folder for file in folder.rglob("*.safetensors")) + begun
        beside = dict.fromkeys([*folders, *(file.parent for file in files)])
        return weights_digest(f"{names} {self.spec}", files, "reader", beside_digest(*beside))

    def read(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> Rollout:
        """Make a rollout of B given outputs, in this reader's own tokens or latents."""
        return self.loaded.observe(prompts, outputs)

    @without_gradient
    def log_prob(self, rollout: Rollout, probe: Probe, rows: int = 16) -> Float[Tensor, "B T"]:
        """Terms in nats that sum to (an estimate of) log p of each output, `rows` rows at a time."""
        parts = [
            self.loaded.log_prob(rollout[i : i + rows], {key: value[i : i + rows] for key, value in probe.items()})
            for i in range(0, len(rollout), rows)
        ]
        return torch.cat(parts)

    @without_gradient
    def log_probs(self, rollouts: Sequence[Rollout], rows: int = 16) -> list[Float[Tensor, "B _"]]:
        """`log_prob` of several texts behind the same B prompts; each prompt is forwarded once, where that can be."""
        policy: DensityPolicy = self.loaded
        parts = []
        for i in range(0, len(rollouts[0]), rows):
            some = [rollout[i : i + rows] for rollout in rollouts]
            if isinstance(policy, JointDensityPolicy):
                parts.append(policy.log_probs(some, {}))
            else:
                parts.append([policy.log_prob(each, {}) for each in some])
        return [torch.cat(side) for side in zip(*parts, strict=True)]


def shared_probe(policy: DensityPolicy, rollout: Rollout, draws: int, seed: int, purpose: str) -> Probe:
    """Draw one probe for each distinct prompt: all outputs of a prompt, and all who read them, share their noise.

    It follows from the prompt and `seed` alone, so a row's log-prob does not depend on the rows beside it.
    """
    group = groups(rollout.prompts).tolist()
    first: dict[int, Probe] = {}
    for row, number in enumerate(group):
        if number not in first:
            rng = stream(seed, purpose, rollout.prompts[row].question)
            first[number] = policy.probe(rollout[row : row + 1], rng, draws)
    return join([first[number] for number in group])


def _run_of(spec: ReaderSpec) -> tuple[Path, Path] | None:
    """The run directory that `spec` names, as RUN, RUN@STEP or the weights of a checkpoint, and those weights."""
    weights = local_weights(spec) if isinstance(spec, str) and spec else None
    inside = [place for place in weights.absolute().parents if place.name == "checkpoints"] if weights else []
    run = next((place.parent for place in inside if (place.parent / "run.yaml").is_file()), None)
    return None if run is None or weights is None else (run, weights)


def _sections(spec: ReaderSpec, run: Path | None, at: str) -> Mapping[str, Any]:
    if run is not None:
        file = load(run / "run.yaml")
        return {"adapter": file.adapter, "policy": file.policy}
    if isinstance(spec, str):
        if not spec:
            raise ConfigError(f"{at}: is empty; name a run, a folder, a Hub id, or {{adapter: …, policy: …}}.")
        return {
            "adapter": {"name": "causal_lm", "model": spec, "train": "frozen", "chat": "auto"},
            "policy": {"name": "tokens"},
        }
    if sorted(spec) != ["adapter", "policy"]:
        raise ConfigError(f"{at}: needs adapter and policy, got {', '.join(sorted(spec)) or 'nothing'}.")
    return {"adapter": {"train": "frozen", **spec["adapter"]}, "policy": spec["policy"]}


def same_steps(one: Tensor, other: Tensor, at: tuple[str, str]) -> None:
    """Raise CapabilityError unless two readers' tables (B, T) of the same outputs have the same steps."""
    if one.shape != other.shape:
        raise CapabilityError(
            f"{at[0]} and {at[1]}: read the same outputs as {one.shape[1]} and {other.shape[1]} steps; per step only "
            "readers with one tokenizer can be compared."
        )
