"""The data that flows: Prompt → Rollout → Scores, and from there to `mmalign.core.experience`.

One letter, one meaning: B rows (group-major), T policy steps (tokens or denoising transitions), C H W image axes,
S audio samples, D features, N any set size.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.conversation import Message, conversation_key, transcript, user_turn
from mmalign.core.errors import CapabilityError, DataError, MediaError, shown
from mmalign.core.tensor import Tensor

T = TypeVar("T")
R = TypeVar("R", bound="Rows")  # not `Self`, which the typed-call hook of the tests cannot resolve in a method alone


Modality = Literal["text", "image", "audio"]
OneOutput = Any  # of one row: a picture (3, H, W), `Audio` of one row, or a text, as the `modality` says
OutputOfKind = Any  # an `Output` of one modality, which a checker cannot tell: a component's `modality` says which


@dataclass
class Rows:
    """A record of batched fields: indexing it indexes every field along B. None stays None, a string stays a string."""

    def __len__(self) -> int:
        for f in fields(self):
            if (rows := _length(getattr(self, f.name))) is not None:
                return rows
        return 0

    def __getitem__(self: R, rows: slice | Tensor) -> R:
        return replace(self, **{f.name: _pick(getattr(self, f.name), rows) for f in fields(self)})

    def to(self: R, device: torch.device | str) -> R:
        """Return the record with every tensor moved to `device`."""
        return replace(self, **{f.name: _move(getattr(self, f.name), device) for f in fields(self)})


@dataclass(frozen=True)
class Placement:
    """Where a picture came to lie; sizes are (height, width) in pixels.

    Args:
        original: its own size.
        scaled: its size once scaled.
        corner: (top, left) of the target inside the scaled picture; negative where a band of the ground lies before it.
        size: the target's.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    @property
    def changes(self) -> bool:
        """Is it another picture than before?"""
        return self.original != self.size

    @property
    def cropped(self) -> float:
        """The share of the picture's area that is cropped away, in [0, 1)."""
        height, width = (min(have, want) for have, want in zip(self.scaled, self.size, strict=True))
        return 1 - height * width / (self.scaled[0] * self.scaled[1])

    @property
    def enlarged(self) -> float:
        """By how much its height was multiplied (above 1: detail that it does not have is made up)."""
        return self.scaled[0] / self.original[0]


@dataclass(frozen=True)
class Prompt:
    """One request. `media` conditions the policy; `meta` carries facts for rewards (answer, boxes, references).

    Media are pictures (3, H, W) in [0, 1] and sounds, each an `Audio` of one row. `place` says for messages where it
    was read ("file:line"), "" of one that no file holds; `placement` what was done to the given picture that stands
    beside the prompt as its output, for generators that are told.

    A conversation has `messages`, all of them before the answer (see `mmalign.core.conversation`), and `text` is what
    the user said last; () is the one message of a user that says `text`. `tools` are descriptions of functions as chat
    templates take them.
    """

    text: str
    media: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)
    placement: Placement | None = field(default=None, compare=False)
    messages: Sequence[Message] = ()
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def converses(self) -> bool:
        """Is it more than one turn of text?"""
        return bool(self.messages or self.tools)

    @property
    def question(self) -> str:
        """Its words, equal for prompts that ask the same: its text, or the whole conversation as JSON."""
        return conversation_key(self.messages or [user_turn(self.text)], self.tools) if self.converses else self.text

    @property
    def shown(self) -> str:
        """Its words for people: its text, or the whole conversation, a line for each message."""
        return transcript(self.messages) or self.text


@dataclass(frozen=True)
class Preference:
    """One offline comparison: for `prompt`, `chosen` beat `rejected` (outputs of the policy's modality, unbatched)."""

    prompt: Prompt
    chosen: OutputOfKind
    rejected: OutputOfKind


@dataclass(frozen=True)
class Example:
    """One output to imitate for `prompt`: of the policy's modality, unbatched (text, (3, H, W), `Audio` of one row)."""

    prompt: Prompt
    output: OutputOfKind


@dataclass
class Audio(Rows):
    """Sound: `samples` (B, C, S) in [-1, 1] at `rate` Hz; `mask` (B, S) is True where a row still sounds."""

    samples: Float[Tensor, "B C S"]
    rate: int
    mask: Bool[Tensor, "B S"] | None = None


Images = Float[Tensor, "B 3 H W"]  # sRGB in [0, 1]
Output = Tensor | Audio | list[str]


@dataclass
class Rollout(Rows):
    """B outputs for B prompts, with what the policy needs to replay them.

    `output` is images (B, 3, H, W) in [0, 1], `Audio`, or B strings. `group` numbers the prompt a row belongs to.
    `trajectory` is the policy's own, every entry (B, ...). `step_logp` and `mask` are (B, T); a log-prob is a sum over
    event dimensions in float32. `truncated` (B,) is True where an output was cut off before it ended by itself; None
    where outputs have no end of their own.
    """

    prompts: list[Prompt]
    output: OutputOfKind
    group: Int[Tensor, " B"]
    trajectory: dict[str, Tensor] = field(default_factory=dict)
    step_logp: Float[Tensor, "B T"] | None = None
    mask: Bool[Tensor, "B T"] | None = None
    truncated: Bool[Tensor, " B"] | None = None

    def __repr__(self) -> str:
        shape = tuple(self.output.shape) if isinstance(self.output, Tensor) else None
        kind = f"pictures {shape}" if shape else "texts" if isinstance(self.output, list) else "sounds"
        return f"Rollout({len(self.prompts)} {kind}, {len(self.group.unique())} groups)"

    @classmethod
    def of(cls, prompts: Sequence[Prompt | str], output: OutputOfKind) -> "Rollout":
        """B outputs made anywhere, to be scored; rows of equal prompts (see `groups`) are a group.

        Raises:
            MediaError: pictures that are not a tensor (B, 3, H, W) of floats in [0, 1], or texts that are no strings.
            ValueError: another number of prompts than of outputs.
        """
        _require_output(output)
        batch = as_prompts(prompts)
        if len(batch) != len(output):
            raise ValueError(f"{len(batch)} prompts for {len(output)} outputs; give one for each.")
        return cls(batch, output, groups(batch))


def _require_output(output: object) -> None:
    if isinstance(output, Audio):
        return
    if isinstance(output, Tensor):
        if output.ndim != 4 or not output.is_floating_point():
            raise MediaError(
                f"pictures are floats (B, 3, H, W) in [0, 1]; these are {output.dtype} of shape {tuple(output.shape)}."
            )
        if output.numel() and float(output.detach().max()) > 2:
            raise MediaError(
                f"pictures are floats in [0, 1], and these reach {float(output.detach().max()):g}; divide them by 255."
            )
        return
    odd = next((one for one in output if not isinstance(one, str)), "") if isinstance(output, list | tuple) else output
    if not isinstance(odd, str) or isinstance(output, str):
        raise MediaError(
            f"outputs are a tensor of pictures (B, 3, H, W), an Audio, or a list of texts, not {type(odd).__name__}; "
            "a picture of Pillow's becomes a tensor by mmalign.media.image.from_pil, one of NumPy's (H, W, 3) by "
            "torch.from_numpy(a).permute(2, 0, 1) / 255; torch.stack makes a batch of them."
        )


def modality_of(output: object) -> Modality:
    """What outputs are. CapabilityError for those that are neither sound, nor a tensor of floats, nor strings."""
    if isinstance(output, Audio):
        return "audio"
    if isinstance(output, torch.Tensor):
        if not output.is_floating_point():
            raise CapabilityError(f"pictures are floats in [0, 1]; these are {output.dtype}: divide them by 255.")
        return "image"
    if odd := next((one for one in output if not isinstance(one, str)), None) if isinstance(output, list) else output:
        raise CapabilityError(
            f"outputs are a tensor of pictures (B, 3, H, W), an Audio, or a list of strings; these are {_kind(odd)}."
        )
    return "text"


def _kind(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def device_of(output: object) -> torch.device:
    """Return where outputs are; texts are on the CPU."""
    tensor = output.samples if isinstance(output, Audio) else output
    return tensor.device if isinstance(tensor, torch.Tensor) else torch.device("cpu")


def single_outputs(output: OutputOfKind) -> list[OneOutput]:
    """One output per row, detached and on the CPU: pictures (3, H, W), `Audio` of one row, or strings."""
    if isinstance(output, Audio):
        return [output[i : i + 1].to("cpu") for i in range(len(output))]
    return list(output.detach().cpu()) if isinstance(output, torch.Tensor) else list(output)


def as_prompts(prompts: Sequence[Prompt | str]) -> list[Prompt]:
    """Turn texts into prompts, and leave prompts as they are.

    Raises:
        DataError: one prompt where a list of them is meant: a text would count as its letters.
    """
    if isinstance(prompts, str | Prompt):
        raise DataError(f"prompts: one prompt ({shown(prompts, 80)}) where a list of them is meant; write [prompt].")
    return [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def groups(prompts: Sequence[Prompt]) -> Int[Tensor, " B"]:
    """Rows of equal prompts (same words, the very same media) share a number, in order of first appearance.

    The same media are the very same tensors, or lazy ones of one `source`.
    """
    return equal_numbers([(p.question, _media_key(p.media)) for p in prompts])


def equal_numbers(values: Iterable[Hashable]) -> Int[Tensor, " B"]:
    """Equal values share a number, in order of first appearance."""
    seen: dict[Hashable, int] = {}
    return torch.tensor([seen.setdefault(value, len(seen)) for value in values], dtype=torch.long)


def _media_key(media: object) -> Any:
    # Media decoded at each look are new tensors each time: only what they are decoded from says that they are the same.
    if isinstance(media, dict):
        return tuple(sorted((name, id(value)) for name, value in media.items()))
    return getattr(media, "source", id(media))


@dataclass
class NoiseLevel(Rows):
    """Points of a noise schedule: x_t = alpha x_0 + sigma ε; `times` is what the network takes. All of one shape.

    Rectified flow: alpha = 1 - t, sigma = t. Diffusion: alpha = sqrt(ᾱ), sigma = sqrt(1 - ᾱ).
    """

    times: Tensor
    alpha: Tensor
    sigma: Tensor


@dataclass
class StepDist(Rows):
    """The policy's distribution of the recorded steps: log-prob always; mean and std where steps are Gaussian.

    `log_prob` (B, T) in nats, summed over event dimensions; `mean` (B, T, *event); `std` (B, T); `entropy` (B, T) in
    nats, for tokens; `dt` (B, T), > 0, the flow time that a step covers.
    """

    log_prob: Float[Tensor, "B T"]
    mean: Tensor | None = None
    std: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    dt: Float[Tensor, "B T"] | None = None

    def steps(self, chosen: slice) -> StepDist:
        """Return the distribution of the steps `chosen` along T."""
        whole = {f.name: getattr(self, f.name) for f in fields(self)}
        parts: dict[str, Any] = {name: None if value is None else value[:, chosen] for name, value in whole.items()}
        return StepDist(**parts)


class Status(IntEnum):
    """Why a row has, or has not, a value. Only OK and PARSE_FAIL carry one (the latter the floor of the range)."""

    OK = 0
    NOT_APPLICABLE = 1
    PARSE_FAIL = 2
    ERROR = 3
    TIMEOUT = 4

    @property
    def label(self) -> str:
        """The lower-case word used in files."""
        return self.name.lower()


@dataclass
class Scores(Rows):
    """How good each row is; higher is better. `value` is NaN exactly where no score exists: invalid is not zero.

    `value` (B,) float32; `status` (B,) int8 of `Status`; `confidence` (B,) in [0, 1]; `per_step` (B, T) optional credit
    by token or step, which objectives that credit steps take in the place of `value`; `parts` named (B,) components for
    the logs; `info` free text for people, never trained on.
    """

    value: Float[Tensor, " B"]
    status: Int[Tensor, " B"]
    confidence: Float[Tensor, " B"] | None = None
    per_step: Float[Tensor, "B T"] | None = None
    parts: dict[str, Float[Tensor, " B"]] = field(default_factory=dict)
    info: list[str] | None = None

    @classmethod
    def of(cls, value: Float[Tensor, " B"], **more: Any) -> Scores:
        """Scores whose rows are all OK."""
        return cls(value=value, status=torch.zeros(len(value), dtype=torch.int8, device=value.device), **more)

    @property
    def valid(self) -> Bool[Tensor, " B"]:
        """Rows that may enter statistics and the loss: OK, or the policy's own failure at the floor."""
        return (self.status == Status.OK) | (self.status == Status.PARSE_FAIL)


def join(parts: Sequence[T]) -> T:
    """Concatenate records, tensors, lists or dicts along B: the inverse of slicing."""
    return cast(T, _join(parts))


def _join(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if len(parts) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    if isinstance(first, Rows):
        return replace(first, **{f.name: _join([getattr(part, f.name) for part in parts]) for f in fields(first)})
    return first


def _length(value: object) -> int | None:
    if isinstance(value, Tensor | Rows | list):
        return len(value)
    if isinstance(value, dict):
        return next((rows for entry in value.values() if (rows := _length(entry)) is not None), None)
    return None


def _pick(value: object, rows: slice | Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _pick(entry, rows) for key, entry in value.items()}
    if isinstance(value, list):
        return [value[i] for i in torch.arange(len(value))[rows.cpu() if isinstance(rows, Tensor) else rows].tolist()]
    if isinstance(value, Tensor | Rows):
        return value[rows.to(value.device) if isinstance(value, Tensor) and isinstance(rows, Tensor) else rows]
    return value


def _move(value: object, device: torch.device | str) -> Any:
    if isinstance(value, dict):
        return {key: _move(entry, device) for key, entry in value.items()}
    return value.to(device) if isinstance(value, Tensor | Rows) else value
