"""The parts of a run as protocols: Adapter, Policy (and its capabilities), Reward, SetReward, DataSource; see also
`objective.py`.

An adapter is glue around one pretrained family and knows no RL; a policy is maths around an adapter and knows no model
names; an objective names the capability it drives (`needs`). Nobody inherits: a dataclass with these members is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.metrics import Average
from mmalign.core.rng import Noise
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Preference, Prompt, Rollout, Scores, StepDist

Condition = dict[str, Tensor]  # what `encode` makes of prompts: every entry (B, ...)
Inputs = Mapping[str, Tensor]  # what a `TokenAdapter` makes of one prompt, unpadded; `input_ids` (L,) is among it
Probe = dict[str, Tensor]  # a shared sample of noise and times, drawn once: every entry (B, ...)
Metrics = Mapping[str, Average | Tensor]  # by the names of `core.metrics.METRICS`; detached
Mean = Callable[[Tensor], Tensor]  # averages a tensor over ranks, entry by entry
Gather = Callable[[Any], list[Any]]  # what every rank holds, in their order
Prediction = Literal["flow", "epsilon", "v"]
A = TypeVar("A")


def one_process(total: Tensor) -> Tensor:
    """The `Mean` of a process that has no others beside it."""
    return total


def one_alone(value: Any) -> list[Any]:
    """The `Gather` of a process that has no others beside it."""
    return [value]


@runtime_checkable
class Adapter(Protocol):
    """Glue around one pretrained family: tokenizers, encoders, VAEs, checkpoints.

    It is made from its options alone, without weights: until `load()` only its options, `modality` and what its class
    says (`prediction`) are there.
    """

    module: Module  # the trainable part: what DDP wraps and the optimizer sees

    @property
    def modality(self) -> Modality:
        """Of the outputs."""
        ...

    @property
    def device(self) -> torch.device | str:
        """Where the trainable part lives."""
        ...

    def load(self: A, device: torch.device | str | None = None) -> A:
        """Read the weights and place them on `device`, unless an option of the adapter names another; called once.

        Returns the adapter itself.
        """
        ...

    def wrap(self, prepare: Callable[[Module], Module]) -> None:
        """Put what a launcher makes of `module` in its place (DDP's, which averages gradients over processes)."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `module` computes with the weights it started from (LoRA off, or the frozen copy in)."""
        ...

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that the optimizer moves and a checkpoint's state holds, by name."""
        ...

    def save(self, directory: Path) -> None:
        """Write what plain diffusers / peft / transformers loads."""
        ...

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        ...


@runtime_checkable
class LatentAdapter(Adapter, Protocol):
    """A diffusion or flow generator: x_t = α x_0 + σ ε, with (α, σ) and the network's own time in a `NoiseLevel`."""

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        ...

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one row, e.g. (C, H, W); packing into tokens stays inside `predict`."""
        ...

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Conditions for B prompts (no gradient; encoded once per distinct prompt and cached)."""
        ...

    def unconditional(self, rows: int) -> Condition:
        """Conditions of the empty (negative) prompt for `rows` rows, for classifier-free guidance."""
        ...

    def predict(self, x: Float[Tensor, " B *latent"], times: Float[Tensor, " B"], condition: Condition) -> Tensor:
        """The network's raw prediction, (B, *latent) float32, with gradient to `module`."""
        ...

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """The pipeline's own combination of the two predictions (usually u + scale (c - u))."""
        ...

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own schedule, K + 1 levels from noise to data; the last is where sampling ends (σ ≈ 0)."""
        ...

    def level(self, u: Tensor) -> NoiseLevel:
        """Levels at u in (0, 1), the share of the training schedule (1 is pure noise); same shape as u."""
        ...

    def decode(self, x: Float[Tensor, " B *latent"]) -> Any:
        """Latents → images (B, 3, H, W) nominally in [0, 1], not clamped, or Audio; differentiable, float32."""
        ...

    def latents(self, output: Any) -> Float[Tensor, " B *latent"]:
        """Images or Audio → latents (the mode of the encoder's distribution), no gradient."""
        ...


@runtime_checkable
class Decoding(Protocol):
    """The state of decoding: the cache of A unfinished completions, and the features of their next step."""

    @property
    def features(self) -> Float[Tensor, "A D"]:
        """For `TokenAdapter.logits`."""
        ...

    def advance(self, tokens: Int[Tensor, " A *event"]) -> None:
        """Append one step to every row; `features` are then those of the step after it."""
        ...

    def keep(self, rows: Int[Tensor, " K"]) -> None:
        """Go on with these rows only."""
        ...


@runtime_checkable
class TokenAdapter(Adapter, Protocol):
    """A generator of tokens, step by step; a step is one token, or one frame of K codebooks.

    Completions are `tokens` (B, T, *event_shape) with `mask` (B, T), True up to and including the step that ends them.
    An entry outside [0, vocabulary) was fixed by the format (a delay pattern's fill) and not chosen: its probability
    is 1. Rows name the prompt they continue by its number in `inputs`, so that whatever a prompt costs (its forward,
    its images, its sound) is paid once however many rows share it. Networks run without dropout.
    """

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one step: () for text, (K,) for codebooks."""
        ...

    @property
    def vocabulary(self) -> int:
        """V: the entries of one softmax."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Any of them ends a completion and belongs to it; () if only its length ends it."""
        ...

    @property
    def pad_id(self) -> int:
        """It fills what is masked, and is never read."""
        ...

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """Model inputs of each prompt: tokenised and processed once per distinct prompt, and kept; no gradient."""
        ...

    def features(
        self,
        inputs: Sequence[Inputs],
        rows: Int[Tensor, " B"],
        tokens: Int[Tensor, " B T *event"],
        mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T *features"]:
        """The hidden states that predict each step from the prompt and the steps before it; with gradient.

        Row b continues the prompt `inputs[rows[b]]`.

        Raises DataError where prompt and completion are longer than the model's context.
        """
        ...

    def logits(self, features: Float[Tensor, " N *features"]) -> Float[Tensor, " N *event V"]:
        """Unnormalised log-probs of N steps, temperature 1; cheap in memory for few N; with gradient."""
        ...

    def begin(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> Decoding:
        """Prefill: forward every prompt once; the state of B rows before the first of at most `steps`; no gradient."""
        ...

    def forced(self, step: int, steps: int) -> Int[Tensor, " *event"] | None:
        """The entries of step `step` of at most `steps` that the format fixes, -1 where free; None where all are."""
        ...

    def decode(self, tokens: Int[Tensor, " B T *event"], mask: Bool[Tensor, "B T"]) -> Any:
        """Completions → B strings, or Audio; what ends a text is not part of it."""
        ...

    def tokenize(self, outputs: Any) -> tuple[Int[Tensor, " B T *event"], Bool[Tensor, "B T"]]:
        """Given outputs → finished completions, with the token that ends them; T at least 1."""
        ...


@runtime_checkable
class ScoreAdapter(Adapter, Protocol):
    """A network that gives an output one number: a reward model. `modality` is that of the outputs it scores."""

    def read(self, prompts: Sequence[Prompt], outputs: Any) -> list[Inputs]:
        """Model inputs of B prompts with their outputs: tokenised and processed, unpadded; no gradient.

        Raises DataError where prompt and output are longer than the model's context.
        """
        ...

    def score(self, inputs: Sequence[Inputs]) -> Float[Tensor, " B"]:
        """The scores, float32, higher is better, with gradient; a row's score does not depend on the others."""
        ...


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
        """The distribution of the recorded steps under the current weights, with gradient."""
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

    def observe(self, prompts: Sequence[Prompt], outputs: Any) -> Rollout:
        """Given outputs (images, audio, strings) as a rollout that `log_prob` accepts."""
        ...

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """The noise and times that policy, reference and both sides of a pair share; {} for tokens."""
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
        """The reference's prediction of x₀ with the prompt minus that without, at a noised x₀; no gradient."""
        ...


@runtime_checkable
class ScorePolicy(Weights, Protocol):
    """Generates nothing and scores every output: what is fitted to preferences and becomes a reward."""

    def observe(self, prompts: Sequence[Prompt], outputs: Any) -> Rollout:
        """Given outputs (images, strings) as a rollout that `score` accepts."""
        ...

    def score(self, rollout: Rollout) -> Float[Tensor, " B"]:
        """The score of every row, float32, higher is better; with gradient."""
        ...


AnyPolicy: TypeAlias = Policy | ScorePolicy  # what the training loop moves


@runtime_checkable
class Reward(Protocol):
    """A score per row."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """The kinds of outputs it can judge."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """The declared lowest and highest score; the lowest is what a PARSE_FAIL scores."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches `rollout.output`."""
        ...

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows; never raises for a bad row (that is a status), never touches global random state."""
        ...


@runtime_checkable
class SetReward(Protocol):
    """A score of a set. Rows are embedded once; any subset is then cheap to score."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """The kinds of outputs it can judge."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches `rollout.output`."""
        ...

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One embedding per row."""
        ...

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """The set's value; higher is better."""
        ...

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to `score` (closed-form influence, mean 0); higher is better."""
        ...


@runtime_checkable
class DataSource(Protocol):
    """Where prompts or preferences come from. Making one reads nothing; its rows are read when they are asked for.

    Both methods return the same rows whenever they are called. A source may say besides, in `references:
    tuple[str, ...]`, which of its options name files; a relative one then starts at the run file, whose folder is
    given to an option called `relative_to`.

    Rows that are expensive to make may be a sequence that makes them when it is indexed. It then answers without
    making any: `prompts()`, the prompt of each row; `kind`, the modality of what preferences compare; `faults()`, a
    sentence for each row that cannot be read; `shapes()`, pairs of a row's place and its picture's (height, width).
    """

    def training_items(self) -> Sequence[Prompt] | Sequence[Preference]:
        """The rows to train on, at least one; all prompts, or all preferences."""
        ...

    def held_out_items(self) -> Sequence[Prompt] | Sequence[Preference]:
        """Rows of the same kind that are never trained on; empty where nothing is held out."""
        ...


__all__ = [
    "Adapter",
    "AnyPolicy",
    "Condition",
    "DataSource",
    "Decoding",
    "DensityPolicy",
    "DiffPolicy",
    "Gather",
    "GuidedPolicy",
    "Inputs",
    "JointDensityPolicy",
    "LatentAdapter",
    "Mean",
    "Metrics",
    "Policy",
    "Prediction",
    "Probe",
    "Reward",
    "ScoreAdapter",
    "ScorePolicy",
    "SetReward",
    "StepPolicy",
    "TokenAdapter",
    "VelocityPolicy",
    "Weights",
    "one_alone",
    "one_process",
]
