"""Scenes of one to four coloured shapes, and their rendering to small images."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES = ("small", "large")
PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.10, 0.60, 0.18),
    "blue": (0.12, 0.25, 0.88),
    "yellow": (0.95, 0.82, 0.08),
    "purple": (0.62, 0.15, 0.72),
    "black": (0.06, 0.06, 0.06),
}
COLORS = tuple(PALETTE)
RADIUS = {"small": 6.5, "large": 11.0}
MAX_THINGS = 4
#: Pixels kept free between the circles around two things (corners of squares reach a little beyond), and to the border.
GAP = 5.0
EDGE = 1.5
PATCH = 26
_SUPERSAMPLES = 8


class Thing(NamedTuple):
    """One object. ``x`` and ``y`` are its centre in pixels, ``x`` to the right and ``y`` downwards."""

    shape: str
    color: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """What an image shows: a few things on a plain background."""

    things: tuple[Thing, ...]


def inside_shape(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Say which points lie inside a shape of radius one centred on the origin.

    Args:
        shape: one of ``SHAPES``.
        u: horizontal coordinates, any shape.
        v: vertical coordinates (downwards), same shape as ``u``.

    Returns:
        A boolean array shaped like ``u``.
    """
    if shape == "circle":
        return u * u + v * v <= 0.92**2
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.82
    if shape == "cross":
        long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        return (long <= 1.0) & (short <= 0.32)
    if shape == "triangle":
        return (v <= 0.8) & (v >= -0.95 + 1.75 * np.abs(u))
    if shape == "star":
        return _inside_star(u, v)
    raise ValueError(f"unknown shape {shape!r} in inside_shape: use one of {', '.join(SHAPES)}")


def _inside_star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points, one upwards, reaching radius 1.08 so that its area is comparable with the other shapes."""
    outer, inner = 1.08, 0.44
    angle = np.mod(np.arctan2(u, -v), 2 * np.pi / 5)
    angle = np.minimum(angle, 2 * np.pi / 5 - angle)
    radius = np.hypot(u, v)
    # Within one tenth of the circle the outline is the segment from the outer tip to the inner corner.
    corner = np.array([inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)])
    edge = corner - np.array([outer, 0.0])
    side = edge[0] * (radius * np.sin(angle)) - edge[1] * (radius * np.cos(angle) - outer)
    return side >= 0


@lru_cache(maxsize=512)
def coverage(shape: str, size: str, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Antialiased mask of one shape.

    Args:
        shape: one of ``SHAPES``.
        size: one of ``SIZES``.
        dx: offset of the centre from the middle of the patch, in pixels.
        dy: the same, downwards.

    Returns:
        ``(PATCH, PATCH)`` float32 in [0, 1], the share of each pixel that the shape covers. Read-only.
    """
    grid = (np.arange(PATCH * _SUPERSAMPLES) + 0.5) / _SUPERSAMPLES - PATCH / 2
    u, v = np.meshgrid((grid - dx) / RADIUS[size], (grid - dy) / RADIUS[size])
    blocks = inside_shape(shape, u, v).reshape(PATCH, _SUPERSAMPLES, PATCH, _SUPERSAMPLES)
    mask = blocks.mean(axis=(1, 3), dtype=np.float32)
    mask.setflags(write=False)
    return mask


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: what to draw; centres are rounded to half pixels.
        rng: decides the background shade and the slight variation of every colour.

    Returns:
        ``(3, 64, 64)`` float32 in [0, 1].
    """
    return painted(scene, shaded(scene, rng))


class Shades(NamedTuple):
    """What a picture of a scene has besides the scene: red, green and blue of the background and of every thing."""

    background: tuple[float, ...]
    things: tuple[tuple[float, ...], ...]


def shaded(scene: Scene, rng: np.random.Generator) -> Shades:
    """Draw the shades of a picture; nothing is painted."""
    background = rng.uniform(0.80, 0.96) + rng.uniform(-0.02, 0.02, size=3)
    things = [np.clip(np.array(PALETTE[t.color]) + rng.uniform(-0.04, 0.04, size=3), 0, 1) for t in scene.things]
    return Shades(tuple(background.tolist()), tuple(tuple(color.tolist()) for color in things))


def painted(scene: Scene, shades: Shades) -> np.ndarray:
    """The picture of a scene in its shades, ``(3, 64, 64)`` float32 in [0, 1]."""
    image = np.empty((3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    image[:] = np.array(shades.background)[:, None, None]
    for thing, color in zip(scene.things, shades.things, strict=True):
        _paint(image, thing, np.array(color, dtype=np.float32))
    return image


def _paint(image: np.ndarray, thing: Thing, color: np.ndarray) -> None:
    """Blend one thing into ``image`` in place, clipping the patch at the border."""
    x, y = round(thing.x * 2) / 2, round(thing.y * 2) / 2
    column, row = int(np.floor(x)), int(np.floor(y))
    mask = coverage(thing.shape, thing.size, x - column, y - row)
    left, top = column - PATCH // 2, row - PATCH // 2
    x0, x1 = max(left, 0), min(left + PATCH, IMAGE_SIZE)
    y0, y1 = max(top, 0), min(top + PATCH, IMAGE_SIZE)
    part = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    target = image[:, y0:y1, x0:x1]
    target += part * (color[:, None, None] - target)
