"""What gives values: rewards of rows and of sets, how several become one, what they see and ask with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int

from mmalign.core.protocols.values import Mean
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores

Bounds = tuple[float, float]  # the least and the largest value


@runtime_checkable
class Reward(Protocol):
    """Gives every row of a rollout a score of its own."""

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
        """Return the set's value; higher is better."""
        ...

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to `score` (closed-form influence, mean 0); higher is better."""
        ...


@runtime_checkable
class Combination(Protocol):
    """Makes one value of several rewards. What else it may say of itself is in `CombinationTraits`, with the defaults.

    `parts` are the `Scores` of every trained reward by name, of the same B rows; `weights` their weights; `ranges` what
    they declare. A row on which any part has no value has none either, unless the combination is about just that.
    """

    @property
    def differentiable(self) -> bool:
        """Whether gradient passes from the parts to the value."""
        ...

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows; `group` is the number of the prompt that each row belongs to."""
        ...

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """Return the least and the largest value, which may be infinite."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A part with a state of its own, as a combination that learns from the rows: it lies in checkpoints."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return what it has learned."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave; raises ValueError where it does not fit."""
        ...


@runtime_checkable
class Adaptive(Protocol):
    """A combination whose calls change what it has learned."""

    adapting: bool  # whether they do; off during evaluation


@runtime_checkable
class Calibrated(Protocol):
    """A reward of rows that measures them against what the policy's start makes of the same prompt."""

    @property
    def samples(self) -> int:
        """How many outputs of each prompt it wants to see; 0: it measures against nothing."""
        ...

    def uncalibrated(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return those of the prompts that it knows nothing of, each once."""
        ...

    def calibrate(self, rollout: Rollout) -> None:
        """Take in `samples` outputs of the policy's start on one prompt."""
        ...


@runtime_checkable
class Searching(Protocol):
    """A combination some of whose numbers are tried out, by a measure that nothing is trained on."""

    search: str  # the measure, by its name in the evaluation; "": nothing is tried

    def measured(self, value: float) -> None:
        """Take in what the measure came to with the present numbers, and go on with the next ones."""
        ...


@runtime_checkable
class PerPrompt(Protocol):
    """A combination with references of its own for each prompt, which it knows by a digest."""

    of_prompts: bool  # whether it has them as it is set up
    samples: int  # outputs of the policy's start that they are made of
    base: Any  # its `BaseReferences`

    def of_rows(
        self,
        keys: Sequence[bytes],
        parts: Mapping[str, Scores],
        weights: Mapping[str, float],
        group: Int[Tensor, " B"],
    ) -> Scores:
        """Combine B rows by the references of their prompts."""
        ...


@runtime_checkable
class Synchronized(Protocol):
    """A part with statistics of the rows of every process."""

    over_ranks: Mean  # averages over processes; the loop sets it


@runtime_checkable
class Encoder(Protocol):
    """Embeds outputs, for rewards of sets and of texts. Sides that not all have are protocols of their own."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs it can embed."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches `rollout.output`."""
        ...

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output; NaN for one that cannot be embedded."""
        ...

    def fingerprint(self) -> str:
        """The digest of weights and preprocessing: embeddings of two encoders compare only where it is the same."""
        ...


@runtime_checkable
class ImageEncoder(Encoder, Protocol):
    """Embeds pictures of any sizes, as reference sets need them."""

    def images(self, pictures: Sequence[Float[Tensor, "3 H W"]]) -> Float[Tensor, "N D"]:
        """One row per picture, no gradient."""
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """Embeds texts, in the space of its outputs."""

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """One row per text, no gradient."""
        ...


@runtime_checkable
class FrameEncoder(Encoder, Protocol):
    """Embeds sounds as frames over time."""

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """Return the frames of each of B sounds, whose number differs; none for a sound that cannot be embedded."""
        ...


@runtime_checkable
class PointSource(Protocol):
    """Says what is asked about the outputs of a prompt; it sees none of them, or they could leave out what is hard."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta` that it reads."""
        ...

    def __call__(self, prompt: Prompt) -> Sequence[Any] | None:
        """The prompt's `KeyPoint`s (`mmalign.rewards.points`), None where it has none; ValueError for odd columns."""
        ...


__all__ = [
    "Adaptive",
    "Bounds",
    "Calibrated",
    "Combination",
    "Encoder",
    "FrameEncoder",
    "ImageEncoder",
    "PerPrompt",
    "PointSource",
    "Reward",
    "Searching",
    "SetReward",
    "Stateful",
    "Synchronized",
    "TextEncoder",
]
