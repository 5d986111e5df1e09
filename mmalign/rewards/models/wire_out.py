"""Rows and scores written as messages, see `wire.py`."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmalign.core.errors import shown
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Output, Prompt, Rollout, Scores, Status, modality_of
from mmalign.media.audio import audio_bytes
from mmalign.media.image import data_uri
from mmalign.rewards.models.wire import PROTOCOL, Malformed, Wire

__all__ = ["message_of", "scores_out"]


@dataclass
class _Packing:
    """The tensors of a message, by name, and what was packed before."""

    wire: Wire
    tensors: dict[str, Tensor] = field(default_factory=dict)
    storages: set[int] = field(default_factory=set)

    def named(self, tensor: Tensor) -> str:
        """The name of a tensor; it is copied where another of the message lies in the same memory."""
        tensor = tensor.detach().cpu().contiguous()
        if (storage := tensor.untyped_storage().data_ptr()) in self.storages:
            tensor = tensor.clone()
        self.storages.add(storage)
        name = f"t{len(self.tensors)}"
        self.tensors[name] = tensor
        return name

    def output(self, output: Output) -> dict[str, Any]:
        kind = modality_of(output)
        if isinstance(output, list):
            return {"kind": kind, "texts": [str(text) for text in output]}
        if self.wire == "files":
            rows = [output[i : i + 1] for i in range(len(output))]
            return {"kind": kind, "files": [_file(row) for row in rows]}
        return {"kind": kind, **self.tensor(output)}

    def medium(self, medium: Tensor | Audio) -> dict[str, Any]:
        """A picture (3, H, W), or `Audio` of one row."""
        kind = modality_of(medium)
        return {"kind": kind, **({"file": _file(medium)} if self.wire == "files" else self.tensor(medium))}

    def tensor(self, medium: Tensor | Audio) -> dict[str, Any]:
        if isinstance(medium, Tensor):
            return {"tensor": self.named(medium)}
        mask = {} if medium.mask is None else {"mask": self.named(medium.mask)}
        return {"tensor": self.named(medium.samples), "rate": medium.rate, **mask}

    def prompt(self, prompt: Prompt) -> dict[str, Any]:
        _require_plain(prompt.meta, "meta")
        media = {name: self.medium(medium) for name, medium in prompt.media.items()}
        conversation = {"messages": list(prompt.messages), "tools": list(prompt.tools)}
        more = {"meta": dict(prompt.meta), "media": media, **conversation}
        return {"text": prompt.text, **{name: value for name, value in more.items() if value}}


def message_of(rollout: Rollout, reward: str, wire: Wire = "safetensors") -> dict[str, Any]:
    """The request to have B rows scored by `reward`: texts, outputs, media and facts of prompts, groups, masks.

    Raises:
        Malformed: a column of `meta` that JSON does not hold.
    """
    packing = _Packing(wire)
    places: dict[int, int] = {}
    for prompt in rollout.prompts:  # rows of a group share theirs
        places.setdefault(id(prompt), len(places))
    different = {id(prompt): prompt for prompt in rollout.prompts}
    message = {
        "protocol": PROTOCOL,
        "reward": reward,
        "prompts": [packing.prompt(different[key]) for key in places],
        "prompt": [places[id(prompt)] for prompt in rollout.prompts],
        "group": rollout.group.tolist(),
        "output": packing.output(rollout.output),
    }
    if rollout.truncated is not None:
        message["truncated"] = rollout.truncated.tolist()
    if rollout.mask is not None:
        message["mask"] = packing.named(rollout.mask)
    if packing.tensors:
        from safetensors.torch import save

        message["tensors"] = base64.b64encode(save(packing.tensors)).decode()
    return message


def scores_out(scores: Scores) -> dict[str, Any]:
    """What a server answers: scores of B rows, NaN as null."""
    answer: dict[str, Any] = {
        "protocol": PROTOCOL,
        "value": _numbers(scores.value),
        "status": [Status(status).label for status in scores.status.tolist()],
        "parts": {name: _numbers(part) for name, part in scores.parts.items()},
    }
    if scores.confidence is not None:
        answer["confidence"] = _numbers(scores.confidence)
    if scores.per_step is not None:
        answer["per_step"] = [_numbers(row) for row in scores.per_step]
    if scores.info is not None:
        answer["info"] = scores.info
    return answer


def _numbers(values: Tensor) -> list[float | str | None]:
    return [
        None if math.isnan(value) else value if math.isfinite(value) else str(value)
        for value in values.detach().float().tolist()
    ]


def _file(medium: Tensor | Audio) -> str:
    """A picture as PNG or a sound as FLAC, base64; what a mask hides of a sound is left out."""
    if isinstance(medium, Audio):
        whole = medium.samples[0] if medium.mask is None else medium.samples[0][:, medium.mask[0]]
        return base64.b64encode(audio_bytes(whole, medium.rate, "FLAC")).decode()
    return data_uri(medium if medium.ndim == 3 else medium[0]).partition(",")[2]


def _require_plain(value: object, place: str) -> None:
    """Raise Malformed unless JSON holds the value as it is, but for tuples, which come as lists."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise Malformed(f"{place}: the key {shown(key, 40)} is no text, and does not travel")
            _require_plain(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_plain(inner, place)
    else:
        raise Malformed(f"{place}: holds {shown(value, 60)} ({type(value).__name__}), which does not travel")
