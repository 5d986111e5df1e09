"""The data that flows: Prompt → Rollout → Scores → Experience.

One letter, one meaning: B rows (group-major), T policy steps (tokens or denoising transitions), C H W image axes,
S audio samples, D features, N any set size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmalign.core.errors import DataError, MediaError, shown

Modality = Literal["text", "image", "audio"]
R = TypeVar("R", bound="Rows")


class Rows:
    """A record of batched fields: indexing it indexes every field along B. None stays None; str stays."""

    def __len__(self) -> int:
        for f in fields(self):  # type: ignore[arg-type]
            if (n := _length(getattr(self, f.name))) is not None:
                return n
        return 0

    def __getitem__(self: R, rows: slice | Tensor) -> R:
        picked = {f.name: _pick(getattr(self, f.name), rows) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **picked)  # type: ignore[type-var]

    def to(self: R, device: torch.device | str) -> R:
        """Every tensor moved to `device`."""
        moved = {f.name: _move(getattr(self, f.name), device) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **moved)  # type: ignore[type-var]


def _length(value: Any) -> int | None:
    if isinstance(value, Tensor | Rows | list):
        return len(value)
    if isinstance(value, dict):
        return next((n for v in value.values() if (n := _length(v)) is not None), None)
    return None


def _pick(value: Any, rows: slice | Tensor) -> Any:
    if isinstance(value, dict):
        return {k: _pick(v, rows) for k, v in value.items()}
    if isinstance(value, list):
        return [value[i] for i in torch.arange(len(value))[rows.cpu() if isinstance(rows, Tensor) else rows].tolist()]
    if isinstance(value, Tensor | Rows):
        return value[rows.to(value.device) if isinstance(value, Tensor) and isinstance(rows, Tensor) else rows]
    return value


def _move(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, dict):
        return {k: _move(v, device) for k, v in value.items()}
    return value.to(device) if isinstance(value, Tensor | Rows) else value


def join(parts: Sequence[Any]) -> Any:
    """Concatenate records, tensors, lists or dicts along B: the inverse of slicing."""
    first = parts[0]
    if len(parts) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, dict):
        return {k: join([p[k] for p in parts]) for k in first}
    if isinstance(first, Rows):
        joined = {f.name: join([getattr(p, f.name) for p in parts]) for f in fields(first)}  # type: ignore[arg-type]
        return replace(first, **joined)  # type: ignore[type-var]
    return first


@dataclass(frozen=True)
class Prompt:
    """One request. `media` conditions the policy; `meta` carries facts for rewards (answer, boxes, references).

    Media are pictures (3, H, W) in [0, 1] and sounds, each an `Audio` of one row. `place` says for messages where it
    was read ("file:line"), "" of one that no file holds.
    """

    text: str
    media: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Preference:
    """One offline comparison: for `prompt`, `chosen` beat `rejected` (outputs of the policy's modality, unbatched)."""

    prompt: Prompt
    chosen: Any
    rejected: Any


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
    output: Any
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
    def of(cls, prompts: Sequence[Prompt | str], output: Any) -> "Rollout":
        """B outputs made anywhere, to be scored; rows of equal prompts (see `groups`) are a group.

        Raises:
            MediaError: pictures that are not a tensor (B, 3, H, W) of floats in [0, 1], or texts that are no strings.
            ValueError: another number of prompts than of outputs.
        """
        _require_output(output)
        asked = as_prompts(prompts)
        if len(asked) != len(output):
            raise ValueError(f"{len(asked)} prompts for {len(output)} outputs; give one for each.")
        return cls(asked, output, groups(asked))


def _require_output(output: Any) -> None:
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


def as_prompts(prompts: Sequence[Prompt | str]) -> list[Prompt]:
    """Texts as prompts; prompts as they are.

    Raises:
        DataError: one prompt where a list of them is meant: a text would count as its letters.
    """
    if isinstance(prompts, str | Prompt):
        raise DataError(f"prompts: one prompt ({shown(prompts, 80)}) where a list of them is meant; write [prompt].")
    return [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def groups(prompts: Sequence[Prompt]) -> Int[Tensor, " B"]:
    """Rows of equal prompts (same text, the very same media) share a number, in order of first appearance.

    The same media are the very same tensors, or lazy ones of one `source`.
    """
    seen: dict[Any, int] = {}
    keys = [(p.text, _media_key(p.media)) for p in prompts]
    return torch.tensor([seen.setdefault(key, len(seen)) for key in keys], dtype=torch.long)


def _media_key(media: Any) -> Any:
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
    """What a policy says of the recorded steps: log-prob always; mean and std where steps are Gaussian.

    `log_prob` (B, T) summed over event dimensions; `mean` (B, T, *event); `std` (B, T); `entropy` (B, T) for tokens;
    `span` (B, T), |dt|, the flow time that a step covers.
    """

    log_prob: Float[Tensor, "B T"]
    mean: Tensor | None = None
    std: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    span: Float[Tensor, "B T"] | None = None


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
        """All rows OK."""
        return cls(value=value, status=torch.zeros(len(value), dtype=torch.int8, device=value.device), **more)

    @property
    def valid(self) -> Bool[Tensor, " B"]:
        """Rows that may enter statistics and the loss: OK, or the policy's own failure at the floor."""
        return (self.status == Status.OK) | (self.status == Status.PARSE_FAIL)


class Counted(Tensor):
    """A mean, 0-dimensional, that knows of how many `entries` it is: means of parts then make the mean of the whole."""

    entries: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # what is computed from it is a plain tensor

    @classmethod
    def of(cls, values: Tensor, mask: Tensor) -> Counted:
        """The mean of `values` over the entries of `mask`, which are not none."""
        made: Counted = values.detach().float()[mask].mean().as_subclass(cls)
        made.entries = mask.sum()
        return made


class Experience(Rows):
    """What one step trains on; `mask` says which entries count, `weight` (set before any split) how much."""

    mask: Tensor
    weight: Tensor | None

    def minibatches(self: R, count: int, rng: torch.Generator) -> Iterator[R]:
        """`count` random parts of the rows (fewer only where there are fewer rows), whose sizes differ by 1 at most."""
        if count <= 1:
            return iter([self])
        order = torch.randperm(len(self), generator=rng)
        return (self[rows] for rows in order.tensor_split(max(1, min(count, len(self)))))

    def contributing(self: R) -> R:
        """The rows that weigh anything, in their order; the first row alone where none does.

        A loss is a weighted sum: rows of weight 0 (dead groups, ties, rows without a score) change neither it nor its
        gradient, and need not be computed. One row stays, because every process takes part in the sum of gradients.
        """
        if self.weight is None:  # type: ignore[attr-defined]
            return self
        counts = (self.weight != 0).flatten(1).any(1) if self.weight.dim() > 1 else self.weight != 0  # type: ignore[attr-defined]
        if bool(counts.all()):
            return self
        rows: Tensor = counts.nonzero()[:, 0]
        return self[rows if len(rows) else slice(0, 1)]

    def chunks(self: R, rows: int, spans: int) -> Iterator[tuple[R, bool]]:
        """Parts of at most `rows` rows (and `spans` steps, where steps exist), each with "is it the last?"."""
        starts = range(0, len(self), rows)
        return ((self[i : i + rows], i == starts[-1]) for i in starts)


@dataclass
class Transitions(Experience):
    """Scored rollouts, for objectives that replay the policy's own steps.

    `advantage` (B, 1) or (B, T); `old` what the behaviour policy said of the steps; `ref` what the reference says.
    `steps` is the slice of T this part covers.
    """

    rollout: Rollout
    advantage: Float[Tensor, " B #T"]
    mask: Bool[Tensor, "B T"]
    old: StepDist
    ref: StepDist | None = None
    weight: Float[Tensor, "B T"] | None = None
    scores: Scores | None = None
    steps: slice = field(default_factory=lambda: slice(None))

    def chunks(self, rows: int, spans: int) -> Iterator[tuple[Transitions, bool]]:
        """Parts of at most `rows` rows and `spans` steps; `steps` says which."""
        cuts = [(i, t) for i in range(0, len(self), rows) for t in range(0, self.mask.shape[1], spans)]
        for i, t in cuts:
            part, span = self[i : i + rows], slice(t, min(t + spans, self.mask.shape[1]))
            yield (
                replace(
                    part,
                    steps=span,
                    advantage=part.advantage if part.advantage.shape[1] == 1 else part.advantage[:, span],
                    mask=part.mask[:, span],
                    weight=None if part.weight is None else part.weight[:, span],
                    old=_span(part.old, span),
                    ref=None if part.ref is None else _span(part.ref, span),
                ),
                (i, t) == cuts[-1],
            )


def _span(dist: StepDist, span: slice) -> StepDist:
    def cut(value: Tensor | None) -> Any:
        return None if value is None else value[:, span]

    return StepDist(cut(dist.log_prob), cut(dist.mean), cut(dist.std), cut(dist.entropy), cut(dist.span))


@dataclass
class Pairs(Experience):
    """Chosen and rejected outputs for the same prompts, with the noise both share.

    `probe` is the policy's draw (every entry (B, ...)), one for both sides and for the reference; `ref_chosen` and
    `ref_rejected` are the reference's log-prob terms under it, T and U of them (texts differ in length, draws do not).
    `label` (B,) is P(chosen is better). `gap` (B,)
    is the difference of their scores; `anchor` (B,) the log-ratio, in nats, that each side is judged against (KTO);
    `divisor` (B,) what the chosen output's own log-prob is divided by.
    """

    chosen: Rollout
    rejected: Rollout
    mask: Bool[Tensor, " B"]
    probe: dict[str, Tensor] = field(default_factory=dict)
    ref_chosen: Float[Tensor, "B T"] | None = None
    ref_rejected: Float[Tensor, "B U"] | None = None
    gap: Float[Tensor, " B"] | None = None
    label: Float[Tensor, " B"] | None = None
    anchor: Float[Tensor, " B"] | None = None
    divisor: Float[Tensor, " B"] | None = None
    weight: Float[Tensor, " B"] | None = None


@dataclass
class Comparisons(Experience):
    """Judged pairs of outputs to fit a score to.

    `label` (B,) is P(chosen is better), `tie` (B,) marks those where neither was, `margin` (B,) ≥ 0 is by how much the
    preferred one must lead.
    """

    chosen: Rollout
    rejected: Rollout
    mask: Bool[Tensor, " B"]
    label: Float[Tensor, " B"]
    tie: Bool[Tensor, " B"]
    margin: Float[Tensor, " B"]
    weight: Float[Tensor, " B"] | None = None


@dataclass
class Demonstrations(Experience):
    """Outputs to imitate, with the noise they are judged under; `divisor` (B,) divides each one's log-prob."""

    rollout: Rollout
    mask: Bool[Tensor, " B"]
    divisor: Float[Tensor, " B"]
    probe: dict[str, Tensor] = field(default_factory=dict)
    weight: Float[Tensor, " B"] | None = None


@dataclass
class Requests(Experience):
    """Prompts to answer during the loss, with their noise drawn beforehand (`draws`, every entry (B, ...))."""

    prompts: list[Prompt]
    mask: Bool[Tensor, " B"]
    draws: dict[str, Tensor] = field(default_factory=dict)
    weight: Float[Tensor, " B"] | None = None
