"""A policy: maths around an adapter, which knows no model names. What an objective drives is a capability (`needs`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float

from mmalign.core.protocols.values import (
    Denoising,
    Probe,
)
from mmalign.core.rng import Noise
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Modality, OutputOfKind, Prompt, Rollout, StepDist


@runtime_checkable
class Weights(Protocol):
    """What every policy has: the module that is trained, and what kind of outputs it is of."""

    @property
    def modality(self) -> Modality:
        """Of the outputs."""
        ...

    @property
    def module(self) -> Module:
        """The trainable part."""
        ...


@runtime_checkable
class Policy(Weights, Protocol):
    """A conditional distribution over outputs; names follow torch.distributions."""

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        """One output per prompt row, no gradient; rows of equal prompts form one group."""
        ...

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """One output per prompt row by the deployment sampler (deterministic ODE / DDIM for diffusion), no gradient.

        Evaluation and previews use it; equal `rng` states give equal noise before and after training. With one
        generator per row, an output does not depend on the rows beside it.
        """
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the policy is the frozen one it started from."""
        ...


@runtime_checkable
class StepPolicy(Policy, Protocol):
    """Replays its own steps: tokens, flow SDE, DDPM."""

    @property
    def event_size(self) -> int:
        """Dimensions one step's log-prob sums over (1 for tokens)."""
        ...

    def step_dist(self, rollout: Rollout, steps: slice = ...) -> StepDist:
        """Return the distribution of the recorded steps under the current weights, with gradient."""
        ...

    def step_log_prob(self, rollout: Rollout, steps: slice = ...) -> Float[Tensor, "B T"]:
        """`step_dist(...).log_prob`."""
        ...


@runtime_checkable
class VelocityPolicy(StepPolicy, Protocol):
    """Steps along a flow: its Gaussians' means are linear in the velocity that the network predicts."""

    def mean_slope(self, rollout: Rollout, steps: slice = ...) -> Float[Tensor, "B T"]:
        """∂mean/∂v of the recorded steps: by how much a step's mean moves where its velocity moves by 1; never 0."""
        ...


@runtime_checkable
class DensityPolicy(Policy, Protocol):
    """Gives the log-prob of any output: exactly for tokens, by a denoising-error surrogate for diffusion."""

    @property
    def event_size(self) -> int:
        """Dimensions one term of `log_prob` sums over (1 for tokens)."""
        ...

    def observe(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> Rollout:
        """Given outputs (images, audio, strings) as a rollout that `log_prob` accepts."""
        ...

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """Return the noise and times that policy, reference and both sides of a pair share; {} for tokens."""
        ...

    def log_prob(self, rollout: Rollout, probe: Probe) -> Float[Tensor, "B T"]:
        """Terms summing over T to (an estimate of) log p up to a constant; T = draws for diffusion; with gradient."""
        ...


@runtime_checkable
class JointDensityPolicy(DensityPolicy, Protocol):
    """Gives the log-probs of several outputs of the same prompts in one pass, which pays for the prompts once."""

    def log_probs(self, rollouts: Sequence[Rollout], probe: Probe) -> list[Float[Tensor, "B _"]]:
        """`log_prob` of each of the rollouts, whose rows answer the same prompts."""
        ...


@runtime_checkable
class HoldsWeights(Policy, Protocol):
    """Can compute with trainable weights that it had before."""

    def trained_weights(self) -> dict[str, Tensor]:
        """Return copies of the trainable weights as they are now, by name, on the CPU."""
        ...

    def holding(self, weights: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside it, the policy computes with these weights."""
        ...


@runtime_checkable
class VocabularyPolicy(DensityPolicy, Protocol):
    """Chooses every step among V entries, and gives the log-odds of all of them: language models."""

    def step_logits(self, rollout: Rollout) -> Float[Tensor, "B T V"]:
        """Return unnormalised log-probs of every entry before each step, float32, 0 where masked; with gradient."""
        ...


@runtime_checkable
class DenoisingPolicy(DensityPolicy, Protocol):
    """Has a density by denoising, and gives the predictions behind it."""

    def denoising(self, rollout: Rollout, probe: Probe) -> Denoising:
        """Return the network's prediction at every draw of the probe, with gradient, its target and its weight."""
        ...


@runtime_checkable
class DiffPolicy(Policy, Protocol):
    """Lets gradient flow from the output to the weights (few-step generators)."""

    def draw(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Probe:
        """All the noise `rsample` will use, so that any split of the rows gives the same outputs."""
        ...

    def rsample(self, prompts: Sequence[Prompt], draws: Probe) -> Rollout:
        """Outputs that carry gradient; `trajectory["x0"]` holds the final latents, with gradient."""
        ...


@runtime_checkable
class GuidedPolicy(DiffPolicy, Protocol):
    """Knows the direction in which its frozen reference's guidance would move an output."""

    def guidance_direction(
        self, x0: Float[Tensor, " B *latent"], prompts: Sequence[Prompt], draws: Probe
    ) -> Float[Tensor, " B *latent"]:
        """Return the reference's prediction of x₀ with the prompt minus that without, at a noised x₀; no gradient."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """Scores every output: what a bench measures, be it fitted or a reward as it is."""

    @property
    def modality(self) -> Modality:
        """What it scores."""
        ...

    def observe(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> Rollout:
        """Given outputs (images, sounds, strings) as a rollout that `score` accepts."""
        ...

    def score(self, rollout: Rollout) -> Float[Tensor, " B"]:
        """Return the score of every row, float32, higher is better."""
        ...


@runtime_checkable
class ScorePolicy(Weights, Protocol):
    """Generates nothing and scores every output: what is fitted to preferences and becomes a reward."""

    def observe(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> Rollout:
        """Given outputs (images, strings) as a rollout that `score` accepts."""
        ...

    def score(self, rollout: Rollout) -> Float[Tensor, " B"]:
        """Return the score of every row, float32, higher is better; with gradient."""
        ...


@runtime_checkable
class FeaturePolicy(Weights, Protocol):
    """Gives features of every output: what a contrastive loss trains, and what a probe reads."""

    def observe(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> Rollout:
        """Given outputs as a rollout that `features` accepts."""
        ...

    def features(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Return one vector per row, float32, with gradient; it does not depend on the other rows."""
        ...


@runtime_checkable
class FeatureScorePolicy(ScorePolicy, FeaturePolicy, Protocol):
    """Scores outputs, and gives the features that the scores are made of in the same forward."""

    def scored_features(self, rollout: Rollout) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """Return `score` and `features` of every row."""
        ...

    def scored_states(
        self, rollout: Rollout
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Return `score`, the features at each of L tokens, and which of these are the output's; with gradient."""
        ...


@runtime_checkable
class GatedPolicy(FeaturePolicy, Protocol):
    """Says how much each dimension of its features counts where two kinds of outputs are compared."""

    def gates(self, prompts: Sequence[Prompt]) -> Float[Tensor, "B D"]:
        """Return numbers in [0, 1] for the pair of kinds that each prompt's columns name, with gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class PolicyTraits:
    """The options that policies may have and that a run reads of them.

    Args:
        rows: rows per forward without gradient, 0 for all at once; None where a policy has no such option.
        forward_per_step: is each step of an output a forward of its own, as in diffusion?
        eval_temperature: of `generate`, for tokens; 0 takes the likeliest each time.
        keep_features: do its outputs carry their features, `trajectory["features"]` (B, D)?
    """

    rows: int | None = None
    forward_per_step: bool = False
    eval_temperature: float | None = None
    keep_features: bool = False

    @classmethod
    def of(cls, policy: AnyPolicy) -> PolicyTraits:
        """Return the options of a policy, the default of each that it does not have."""
        values: dict[str, Any] = {f.name: getattr(policy, f.name, f.default) for f in fields(cls)}
        return cls(**values)


AnyPolicy: TypeAlias = Policy | ScorePolicy  # what the training loop moves


__all__ = [
    "AnyPolicy",
    "DenoisingPolicy",
    "DensityPolicy",
    "DiffPolicy",
    "FeaturePolicy",
    "FeatureScorePolicy",
    "GatedPolicy",
    "GuidedPolicy",
    "HoldsWeights",
    "JointDensityPolicy",
    "Policy",
    "PolicyTraits",
    "ScorePolicy",
    "Scoring",
    "StepPolicy",
    "VelocityPolicy",
    "VocabularyPolicy",
    "Weights",
]
