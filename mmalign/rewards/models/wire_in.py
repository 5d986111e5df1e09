"""Messages read back as rows and scores, see `wire.py`: nothing in them is believed before it is looked at."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from mmalign.core.errors import MediaError, shown
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Output, Prompt, Rollout, Scores, Status, equal_numbers
from mmalign.media.audio import decode_audio, sound_shape
from mmalign.media.image import decode_image, picture_size
from mmalign.rewards.models.wire import (
    DECODED,
    PROTOCOL,
    Answer,
    Asked,
    Limits,
    Made,
    Malformed,
    Medium,
    Request,
    Spec,
    TooLarge,
)

__all__ = ["request_in", "rollout_of", "scores_in", "spec_in"]

Model = TypeVar("Model", bound=BaseModel)
_PNG, _FLAC = b"\x89PNG\r\n\x1a\n", b"fLaC"
_CHANNELS = 64


def request_in(body: bytes) -> Request:
    """The request in a message. Raises Malformed."""
    request = _read(Request, body)
    if request.protocol != PROTOCOL:
        raise Malformed(f"protocol: {request.protocol} is asked for, and this is {PROTOCOL}; install the same mmalign.")
    return request


def rollout_of(request: Request, limits: Limits) -> Rollout:
    """The rows of a request.

    Raises:
        Malformed: rows, prompts and outputs that do not belong together, or bytes that are not what they should be.
        TooLarge: beyond `limits`.
    """
    rows = len(request.prompt)
    if rows > limits.rows or len(request.prompts) > limits.rows:
        raise TooLarge(f"{max(rows, len(request.prompts))} rows are more than the {limits.rows} of a request.")
    if not rows:
        raise Malformed("prompt: names no row.")
    if odd := [place for place in request.prompt if not 0 <= place < len(request.prompts)]:
        raise Malformed(f"prompt: there is no prompt {odd[0]}; there are {len(request.prompts)}.")
    unpacking = _Unpacking(_tensors_in(request.tensors), limits)
    prompts = [unpacking.prompt(question) for question in request.prompts]
    output = unpacking.output(request.output, rows)
    group = request.group or request.prompt
    for name, given in (("group", group), ("truncated", request.truncated)):
        if given and len(given) != rows:
            raise Malformed(f"{name}: has {len(given)} entries for {rows} rows.")
    try:
        rollout = Rollout.of([prompts[place] for place in request.prompt], output)
    except (ValueError, TypeError, RuntimeError) as error:  # numbers of 8 bits cannot be compared
        raise Malformed(str(error)) from None
    return replace(
        rollout,
        group=equal_numbers(group),
        truncated=torch.tensor(request.truncated) if request.truncated else None,
        mask=unpacking.mask(request.mask, rows),
    )


def spec_in(given: Mapping[str, Any]) -> Spec:
    """What a server says of itself. Raises Malformed, first of all where it speaks another protocol."""
    theirs, version = given.get("protocol"), shown(given.get("mmalign"), 40)
    if theirs != PROTOCOL:
        raise Malformed(
            f"speaks protocol {shown(theirs, 40)} (mmalign {version}), and this mmalign speaks {PROTOCOL}; install "
            "the same on both sides"
        )
    return _read(Spec, given)


def scores_in(given: Mapping[str, Any], rows: int) -> Scores:
    """The scores of `rows` rows in an answer. Raises Malformed where it is none, or of other rows."""
    answer = _read(Answer, given)
    per_step = answer.per_step
    counted: dict[str, Sequence[Any] | None] = {f"parts.{name}": part for name, part in answer.parts.items()}
    counted |= {name: getattr(answer, name) for name in ("value", "status", "confidence", "per_step", "info")}
    for name, entries in [(name, given) for name, given in counted.items() if given is not None]:
        if len(entries) != rows:
            raise Malformed(f"{name}: has {len(entries)} entries for {rows} rows")
    if per_step and len({len(row) for row in per_step}) > 1:
        raise Malformed("per_step: its rows are not equally long")
    labels = {status.label: int(status) for status in Status}
    if odd := [label for label in answer.status if label not in labels]:
        raise Malformed(f"status: {shown(odd[0], 40)} is none of {', '.join(labels)}")
    return Scores(
        value=_tensor(answer.value),
        status=torch.tensor([labels[label] for label in answer.status], dtype=torch.int8),
        confidence=None if answer.confidence is None else _tensor(answer.confidence),
        per_step=None if per_step is None else torch.stack([_tensor(row) for row in per_step]),
        parts={name: _tensor(part) for name, part in answer.parts.items()},
        info=answer.info,
    )


def _tensor(numbers: Sequence[float | None]) -> Tensor:
    return torch.tensor([math.nan if number is None else number for number in numbers], dtype=torch.float32)


def _read(kind: type[Model], message: bytes | Mapping[str, Any]) -> Model:
    try:
        return kind.model_validate_json(message) if isinstance(message, bytes) else kind.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the message"
        raise Malformed(f"{place}: {first['msg']}") from None


def _tensors_in(text: str) -> dict[str, Tensor]:
    if not text:
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(_bytes(text, "tensors"))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise Malformed(f"tensors: is no safetensors file ({error}).") from None


def _bytes(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{place}: is not base64.") from None


@dataclass
class _Unpacking:
    """Media of a message, held to the limits."""

    tensors: Mapping[str, Tensor]
    limits: Limits
    decoded: int = 0  # bytes that files became so far

    def prompt(self, question: Asked) -> Prompt:
        media = {name: self.medium(medium, f"media.{name}") for name, medium in question.media.items()}
        return Prompt(
            question.text, media, question.meta, messages=tuple(question.messages), tools=tuple(question.tools)
        )

    def medium(self, medium: Medium, place: str) -> Tensor | Audio:
        """A picture (3, H, W), or `Audio` of one row."""
        if medium.file:
            one = (self.picture if medium.kind == "image" else self.sound)(medium.file, place)
            return one[0] if isinstance(one, Tensor) else one
        if medium.kind == "image":
            return self.pictures(self.named(medium.tensor, place)[None], 1, place)[0]
        return self.sounds(medium.tensor, medium.mask, medium.rate, 1)

    def output(self, made: Made, rows: int) -> Output:
        if made.kind == "text":
            return _counted(made.texts, rows, "output.texts")
        if made.files:
            decode = self.picture if made.kind == "image" else self.sound
            return _batch([decode(file, "output.files") for file in _counted(made.files, rows, "output.files")])
        if made.kind == "image":
            return self.pictures(self.named(made.tensor, "output"), rows, "output")
        return self.sounds(made.tensor, made.mask, made.rate, rows)

    def named(self, name: str, place: str) -> Tensor:
        if name not in self.tensors:
            raise Malformed(f"{place}: tensors hold no '{name}'; they hold {', '.join(self.tensors) or 'nothing'}.")
        return self.tensors[name]

    def mask(self, name: str, rows: int) -> Tensor | None:
        """(B, N) of booleans, where there is one."""
        if not name:
            return None
        mask = self.named(name, "mask")
        if mask.dtype != torch.bool or mask.ndim != 2 or len(mask) != rows:
            raise Malformed(f"mask: {mask.dtype} of shape {tuple(mask.shape)} is no mask of {rows} rows.")
        return mask

    def pictures(self, tensor: Tensor, rows: int, place: str) -> Tensor:
        if not tensor.is_floating_point() or tensor.ndim != 4 or tuple(tensor.shape[:2]) != (rows, 3):
            shape = tuple(tensor.shape)
            raise Malformed(f"{place}: {tensor.dtype} of shape {shape} is not {rows} pictures (3, H, W) in [0, 1].")
        self.require_pixels(tensor.shape[2], tensor.shape[3])
        return tensor

    def sounds(self, name: str, mask: str, rate: int, rows: int) -> Audio:
        samples = self.named(name, "audio")
        if not samples.is_floating_point() or samples.ndim != 3 or len(samples) != rows or rate < 1:
            shape = tuple(samples.shape)
            raise Malformed(f"audio: {samples.dtype} of shape {shape} at {rate} Hz is not {rows} sounds (C, S).")
        self.require_seconds(samples.shape[2], rate, samples.shape[1])
        there = self.mask(mask, rows)
        if there is not None and there.shape[1] != samples.shape[2]:
            raise Malformed(f"audio: a mask of {there.shape[1]} samples does not fit {samples.shape[2]}.")
        return Audio(samples, rate, there)

    def picture(self, file: str, place: str) -> Tensor:
        """(1, 3, H, W)."""
        data = self.file(file, place, _PNG, "PNG")
        height, width = _media(lambda: picture_size(data, place))
        self.require_pixels(height, width)
        self.add(12 * height * width)
        return _media(lambda: decode_image(data, place))[None]

    def sound(self, file: str, place: str) -> Audio:
        """Of one row."""
        data = self.file(file, place, _FLAC, "FLAC")
        shape = _media(lambda: sound_shape(data, place))
        self.require_seconds(shape.samples, shape.rate, shape.channels)
        self.add(4 * shape.samples * shape.channels)
        samples, rate = _media(lambda: decode_audio(data, place))
        return Audio(samples[None], rate)

    def file(self, file: str, place: str, begins: bytes, kind: str) -> bytes:
        data = _bytes(file, place)
        if not data.startswith(begins):
            raise Malformed(f"{place}: begins with {data[:8]!r}, and is no {kind}.")
        return data

    def add(self, size: int) -> None:
        self.decoded += size
        if self.decoded > DECODED * self.limits.bytes:
            raise TooLarge(f"its files decode to more than {DECODED * self.limits.bytes >> 20} MiB.")

    def require_pixels(self, height: int, width: int) -> None:
        if height * width > self.limits.pixels:
            raise TooLarge(f"pictures of {width} x {height} have more than {self.limits.pixels:,} pixels.")

    def require_seconds(self, samples: int, rate: int, channels: int) -> None:
        if samples > self.limits.seconds * rate or channels > _CHANNELS:
            of = f"{samples / rate:.4g} s in {channels} channels"
            raise TooLarge(f"sounds of {of} have more than {self.limits.seconds:g} s or {_CHANNELS} channels.")


def _media(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except MediaError as error:
        raise Malformed(str(error)) from None


def _counted(entries: list[str], rows: int, place: str) -> list[str]:
    if len(entries) != rows:
        raise Malformed(f"{place}: has {len(entries)} entries for {rows} rows.")
    return entries


def _batch(decoded: Sequence[Tensor | Audio]) -> Tensor | Audio:
    """One batch of single rows: pictures of one size, or sounds of one rate, the shorter ones masked at their ends."""
    pictures = [one for one in decoded if isinstance(one, Tensor)]
    if pictures:
        sizes = sorted({tuple(one.shape[2:]) for one in pictures})
        if len(sizes) > 1:
            raise Malformed(f"output.files: pictures of several sizes ({sizes[0]}, {sizes[1]}); send one at a time.")
        return torch.cat(pictures)
    sounds = [one for one in decoded if isinstance(one, Audio)]
    kinds = sorted({(one.rate, one.samples.shape[1]) for one in sounds})
    if len(kinds) > 1:
        raise Malformed(f"output.files: sounds of several rates or channels ({kinds[0]}, {kinds[1]}).")
    lengths = torch.tensor([one.samples.shape[2] for one in sounds])
    longest = int(lengths.max())
    padded = [torch.nn.functional.pad(one.samples, (0, longest - one.samples.shape[2])) for one in sounds]
    mask = None if bool((lengths == longest).all()) else torch.arange(longest) < lengths[:, None]
    return Audio(torch.cat(padded), sounds[0].rate, mask)
