"""How rows and their scores travel between `mmalign serve` and the reward `remote`: as JSON, never as pickled objects.

    request   {"protocol": 1, "reward": "clip", "prompts": [{"text": "a red circle", "meta": {…}, "media": {…}}, …],
               "prompt": [0, 0, 1], "group": [0, 0, 1], "output": {"kind": "image", "tensor": "t0"}, "tensors": "…"}
    answer    {"protocol": 1, "value": [0.31, 0.29, null], "status": ["ok", "ok", "error"], "parts": {…}, "info": […]}

`prompt` says for each row which of `prompts` it answers. An output, and each medium of a prompt, is `texts`, or the
name of a `tensor` in `tensors` (a safetensors file, base64), or a file (base64): PNG for pictures, FLAC for sounds.
Tensors are exact; PNG rounds to 8 bits, FLAC to 16. Numbers of an answer are exact: JSON has every digit of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from mmalign.core.types import Modality

__all__ = [
    "DECODED",
    "PROTOCOL",
    "Answer",
    "Asked",
    "Described",
    "Limits",
    "Made",
    "Malformed",
    "Medium",
    "Request",
    "Spec",
    "TooLarge",
    "Wire",
]

PROTOCOL = 1  # raised when a message changes its meaning
DECODED = 4  # bytes that files may become, for each byte that a message may have
Wire = Literal["safetensors", "files"]


class Malformed(ValueError):
    """A message that is not as this page says; the sentence says what is wrong with it."""


class TooLarge(ValueError):
    """A message with more rows, pixels or seconds than are taken."""


@dataclass(frozen=True)
class Limits:
    """What a server takes in one request: `rows`, `bytes` of the message, `pixels` of a picture, `seconds` of a sound.

    `bytes` bounds the memory that files decode to, too: at most four times as much.
    """

    rows: int = 1024
    bytes: int = 256 << 20
    pixels: int = 1 << 24
    seconds: float = 600.0


class Message(BaseModel):
    """What holds its fields, of their types, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Medium(Message):
    """What a prompt is about: a picture (3, H, W) or one sound, as a tensor or a file; `rate` in Hz."""

    kind: Literal["image", "audio"]
    tensor: str = ""
    mask: str = ""
    rate: int = 0
    file: str = ""


class Asked(Message):
    """One prompt, see `mmalign.core.types.Prompt`."""

    text: str
    meta: dict[str, Any] = {}
    media: dict[str, Medium] = {}
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []


class Made(Message):
    """The outputs of all rows: texts, one tensor (B, …), or a file for each."""

    kind: Modality
    texts: list[str] = []
    tensor: str = ""
    mask: str = ""
    rate: int = 0
    files: list[str] = []


class Request(Message):
    """Rows to score; see the head of the file."""

    protocol: int
    reward: str = ""
    prompts: list[Asked]
    prompt: list[int]
    group: list[int] = []
    output: Made
    truncated: list[bool] = []
    mask: str = ""
    tensors: str = ""


class Answer(BaseModel):
    """Scores of B rows, null where there is no number."""

    protocol: int
    value: list[float | None]
    status: list[str]
    confidence: list[float | None] | None = None
    per_step: list[list[float | None]] | None = None
    parts: dict[str, list[float | None]] = {}
    info: list[str] | None = None
    identity: str | None = None


class Described(BaseModel):
    """One reward of a server: the `reward` that it is, what it judges and needs; `identity` tells its weights apart."""

    reward: str
    modalities: list[Modality]
    range: tuple[float, float]
    parts: list[str] = []
    needs: list[str] = []
    batch_dependent: bool = False
    identity: str | None = None


class Sizes(BaseModel):
    """What a server takes in one request, see `Limits`."""

    rows: PositiveInt
    bytes: PositiveInt


class Spec(BaseModel):
    """What a server says of itself at /spec."""

    mmalign: str
    protocol: int
    rewards: dict[str, Described]
    limits: Sizes
