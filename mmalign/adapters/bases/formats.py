"""What a checkpoint makes, by its configuration files alone: known before any weight is read.

A family says it in `frame` (images) or `sound_format` (sounds), which reads the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mmalign.core.errors import ConfigError

Configs = Callable[[str], Mapping[str, Any]]  # a component, or "" for the model itself → what its config.json holds


@dataclass(frozen=True)
class Frame:
    """Pictures of a checkpoint: `channels` of its latents, `native` (height, width) and the `multiple` in pixels.

    `largest` is the most pixels a side that it has positions for; 0 where it computes them.
    """

    channels: int
    native: tuple[int, int]
    multiple: int
    largest: int = 0


@dataclass(frozen=True)
class SoundFormat:
    """Sounds of a checkpoint: `rate` in Hz, `channels`, and the `seconds` of its longest, None where it has no own."""

    rate: int
    channels: int
    seconds: float | None = None


@runtime_checkable
class MakesImages(Protocol):
    """A family of images whose configuration files say what it makes."""

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Return what the checkpoint with these files makes."""
        ...


@runtime_checkable
class MakesSounds(Protocol):
    """A family of sounds whose configuration files say what it makes."""

    @staticmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Return what the checkpoint with these files makes."""
        ...


@runtime_checkable
class Sized(Protocol):
    """An adapter of pictures, by its options of their size in pixels."""

    model: str
    resolution: int | None
    height: int | None
    width: int | None


def sides_of(adapter: Sized, frame: Frame) -> tuple[int, int]:
    """Return (height, width) in pixels that the adapter makes; ConfigError where its checkpoint makes no such size."""
    height, width = image_size(adapter.resolution, adapter.height, adapter.width, frame.native, frame.multiple)
    if 0 < frame.largest < max(height, width):
        raise ConfigError(
            f"adapter.resolution: {height} x {width} pixels, but {adapter.model} has positions for {frame.largest} a "
            f"side and was trained at {frame.native[0]} x {frame.native[1]}; leave resolution, height and width out."
        )
    return height, width


def image_scale(configs: Configs) -> int:
    """Return the pixels per latent, of an autoencoder that halves the sides between its blocks."""
    return int(2 ** (len(configs("vae")["block_out_channels"]) - 1))


def sound_scale(configs: Configs) -> int:
    """Return the samples per latent, of an autoencoder that lists by how much it downsamples."""
    return math.prod(configs("vae")["downsampling_ratios"])


def image_size(
    resolution: int | None, height: int | None, width: int | None, native: tuple[int, int], multiple: int
) -> tuple[int, int]:
    """Return (height, width) in pixels: each as the option says, else `resolution`, else `native`, its training size.

    Raises ConfigError where a side is not a positive multiple of `multiple` pixels.
    """
    sides = {"height": height or resolution or native[0], "width": width or resolution or native[1]}
    faults = [
        f"{name}: {side} is not a positive multiple of {multiple}, which this model needs; "
        f"the nearest is {max(1, round(side / multiple)) * multiple}."
        for name, side in sides.items()
        if side <= 0 or side % multiple
    ]
    if faults:
        raise ConfigError(faults)
    return sides["height"], sides["width"]


__all__ = ["Configs", "Frame", "MakesImages", "MakesSounds", "SoundFormat", "image_scale", "sides_of", "sound_scale"]
