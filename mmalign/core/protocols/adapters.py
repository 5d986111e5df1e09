"""An adapter: glue around one pretrained family, which knows no RL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.encoded import EncodedStore
from mmalign.core.protocols.values import (
    Condition,
    Inputs,
    Prediction,
)
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, OutputOfKind, Prompt

A = TypeVar("A")


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
        """Return the parameters that the optimizer moves and a checkpoint's state holds, by name."""
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
        """Return the network's raw prediction, (B, *latent) float32, with gradient to `module`."""
        ...

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Return the pipeline's own combination of the two predictions (usually u + scale (c - u))."""
        ...

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own schedule, K + 1 levels from noise to data; the last is where sampling ends (σ ≈ 0)."""
        ...

    def level(self, u: Tensor) -> NoiseLevel:
        """Levels at u in (0, 1), the share of the training schedule (1 is pure noise); same shape as u."""
        ...

    def decode(self, x: Float[Tensor, " B *latent"]) -> OutputOfKind:
        """Latents → images (B, 3, H, W) nominally in [0, 1], not clamped, or Audio; differentiable, float32."""
        ...

    def latents(self, output: OutputOfKind) -> Float[Tensor, " B *latent"]:
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
        """Return the hidden states that predict each step from the prompt and the steps before it; with gradient.

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

    def decode(self, tokens: Int[Tensor, " B T *event"], mask: Bool[Tensor, "B T"]) -> OutputOfKind:
        """Completions → B strings, or Audio; what ends a text is not part of it."""
        ...

    def tokenize(self, outputs: OutputOfKind) -> tuple[Int[Tensor, " B T *event"], Bool[Tensor, "B T"]]:
        """Given outputs → finished completions, with the token that ends them; T at least 1."""
        ...


@runtime_checkable
class UnconditionalTokens(Protocol):
    """A `TokenAdapter` that also generates without a prompt, for classifier-free guidance."""

    def unconditional(self, inputs: Sequence[Inputs]) -> list[Inputs]:
        """Return, for the inputs of each prompt, those of generating without it."""
        ...


@runtime_checkable
class ScoreAdapter(Adapter, Protocol):
    """A network that gives an output one number: a reward model. `modality` is that of the outputs it scores."""

    def read(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> list[Inputs]:
        """Model inputs of B prompts with their outputs: tokenised and processed, unpadded; no gradient.

        Raises DataError where prompt and output are longer than the model's context.
        """
        ...

    def score(self, inputs: Sequence[Inputs]) -> Float[Tensor, " B"]:
        """Return the scores, float32, higher is better, with gradient; a row's score does not depend on the others."""
        ...


@runtime_checkable
class FeatureAdapter(ScoreAdapter, Protocol):
    """A `ScoreAdapter` that also gives what its score is made of: the features that its head reads."""

    def scored_features(self, inputs: Sequence[Inputs]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """Return the scores of `score` and the features of each row, float32, of one forward, with gradient."""
        ...


@runtime_checkable
class GatedAdapter(FeatureAdapter, Protocol):
    """A `FeatureAdapter` that says what its dimensions count where two kinds of outputs are compared."""

    def gates(self, prompts: Sequence[Prompt]) -> Float[Tensor, "B D"]:
        """Return numbers in [0, 1] for the pair of kinds that each prompt's columns name, with gradient."""
        ...


@runtime_checkable
class StateAdapter(FeatureAdapter, Protocol):
    """A `FeatureAdapter` whose network reads outputs token by token, and never ahead."""

    def scored_states(
        self, inputs: Sequence[Inputs]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Return scores, the features at every token, float32, and which tokens are the output's; with gradient.

        Raises CapabilityError where the network reads ahead, so that no token stands for a part of the output.
        """
        ...


@runtime_checkable
class KeepsEncoded(Protocol):
    """An adapter that can keep on the disk what its encoders make of given media and of texts."""

    def keep_encoded(self, store: EncodedStore, media: bool = True) -> None:
        """From now on, make nothing that `store` holds, and add what is made; without `media` texts alone."""
        ...


@runtime_checkable
class TurnTokens(Protocol):
    """An adapter of tokens that writes given turns of a conversation by its chat template."""

    def tokenize_behind(
        self, prompts: Sequence[Prompt], outputs: Sequence[str]
    ) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Return B given outputs behind their prompts: tokens, mask, and which of them are to be learned."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdapterTraits:
    """The options that adapters may have and that a run reads of them, before or after weights are loaded.

    Args:
        train: "lora", "full" or "frozen"; "" where an adapter of one's own does not say.
        dtype: of the network's arithmetic.
        model: the checkpoint: a folder or a Hub id.
        revision: of the Hub's files.
        resolution, height, width: of pictures, in pixels; None: the checkpoint's own.
        seconds: of sounds; None: the checkpoint's own.
    """

    train: str = ""
    dtype: str = "fp32"
    model: object = None
    revision: str | None = None
    resolution: int | None = None
    height: int | None = None
    width: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, adapter: object) -> AdapterTraits:
        """Return the options of an adapter, the default of each that it does not have."""
        values: dict[str, Any] = {f.name: getattr(adapter, f.name, f.default) for f in fields(cls)}
        return cls(**values)


__all__ = [
    "Adapter",
    "AdapterTraits",
    "Decoding",
    "FeatureAdapter",
    "GatedAdapter",
    "KeepsEncoded",
    "LatentAdapter",
    "ScoreAdapter",
    "StateAdapter",
    "TokenAdapter",
    "TurnTokens",
    "UnconditionalTokens",
]
