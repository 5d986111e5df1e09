"""Reading an image back: which things it shows, and which clauses of a request hold of them.

Nothing about the scene is known beforehand. The background is the commonest border colour; what differs from it falls
into connected blobs; each blob is compared with every shape at every size. A blob that is no clean thing of the palette
is kept as an ``UNKNOWN`` thing, so that a picture with something unexplained in it fails every exact total.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mmalign.miniworld.language import Request, holds
from mmalign.miniworld.scenes import COLORS, PALETTE, PATCH, SHAPES, SIZES, Scene, Thing, coverage

UNKNOWN = "unknown"
#: A pixel belongs to a thing when its RGB distance to the background exceeds this.
FOREGROUND = 0.20
#: Blobs of fewer pixels are specks, not things.
SMALLEST_BLOB = 10
#: Farthest RGB distance of a blob's inner pixels from the palette colour that it is read as.
COLOR_TOLERANCE = 0.26
#: Share of a blob's inner pixels that must agree on the colour.
COLOR_PURITY = 0.75
#: Least overlap (soft Dice) with the best-fitting shape.
SHAPE_OVERLAP = 0.86
_MARGIN = 5
_WINDOW = PATCH + 2 * _MARGIN
_OFFSETS = np.arange(-1.5, 2.0, 0.5)


class Verdict(NamedTuple):
    """What a batch of images shows of its requests."""

    fraction: np.ndarray  # (B,) float32, share of clauses that hold
    fulfilled: np.ndarray  # (B,) bool, whether all hold
    clauses: list[list[bool]]  # per image, the truth of every clause
    scenes: list[Scene]  # per image, what was read


def verify(image: np.ndarray, request: Request) -> list[bool]:
    """Say which clauses of a request hold in an image ``(3, 64, 64)`` in [0, 1]; it is fulfilled when all do."""
    return holds(read_scene(image), request)


def verify_batch(images: np.ndarray, requests: list[Request]) -> Verdict:
    """Verify images ``(B, 3, 64, 64)`` in [0, 1] (array or tensor) against one request each."""
    if len(images) != len(requests):
        raise ValueError(f"verify_batch got {len(images)} images but {len(requests)} requests: pass one for each")
    scenes = [read_scene(image) for image in images]
    clauses = [holds(scene, request) for scene, request in zip(scenes, requests, strict=True)]
    fraction = np.array([np.mean(truths) for truths in clauses], dtype=np.float32)
    return Verdict(fraction, np.array([all(truths) for truths in clauses], dtype=bool), clauses, scenes)


def read_scene(image: np.ndarray) -> Scene:
    """Read an image ``(3, 64, 64)`` in [0, 1] (array or CPU tensor) into the things it shows."""
    from scipy import ndimage

    pixels = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if pixels.shape[0] != 3 or pixels.ndim != 3:
        raise ValueError(f"read_scene got an image of shape {pixels.shape}: pass (3, height, width)")
    background = _background(pixels)
    distance = np.sqrt(((pixels - background[:, None, None]) ** 2).sum(axis=0))
    labels, _ = ndimage.label(distance > FOREGROUND, structure=np.ones((3, 3)))
    things = []
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        blob = labels[window] == label
        if blob.sum() >= SMALLEST_BLOB:
            things.append(_read_blob(pixels, distance, labels == label, background))
    return Scene(tuple(things))


def _background(pixels: np.ndarray) -> np.ndarray:
    """The median colour of the border, where things seldom reach, refined over all pixels near it."""
    border = np.concatenate([pixels[:, :2].reshape(3, -1), pixels[:, -2:].reshape(3, -1)], axis=1)
    border = np.concatenate([border, pixels[:, :, :2].reshape(3, -1), pixels[:, :, -2:].reshape(3, -1)], axis=1)
    rough = np.median(border, axis=1)
    flat = pixels.reshape(3, -1)
    near = np.abs(flat - rough[:, None]).max(axis=0) < 0.15
    return flat[:, near].mean(axis=1) if near.any() else rough


def _read_blob(pixels: np.ndarray, distance: np.ndarray, blob: np.ndarray, background: np.ndarray) -> Thing:
    """Name the colour, shape and size of one blob (a ``(64, 64)`` mask)."""
    rows, columns = np.nonzero(blob)
    x, y = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
    color = _read_color(pixels[:, blob], distance[blob])
    if color is None or np.ptp(rows) >= _WINDOW or np.ptp(columns) >= _WINDOW:
        return Thing(UNKNOWN, UNKNOWN, UNKNOWN, x, y)
    shape, size, overlap, x, y = _read_shape(_opacity(pixels, blob, background), x, y)
    if overlap < SHAPE_OVERLAP:
        return Thing(UNKNOWN, color, UNKNOWN, x, y)
    return Thing(shape, color, size, x, y)


def _read_color(colors: np.ndarray, distance: np.ndarray) -> str | None:
    """The palette colour on which the inner pixels ``(3, n)`` agree, or None."""
    # Edge pixels are mixed with the background; the inner ones are those farthest from it.
    inner = colors[:, distance >= 0.8 * np.quantile(distance, 0.9)]
    palette = np.array([PALETTE[name] for name in COLORS])
    gaps = np.sqrt(((inner.T[:, None] - palette[None]) ** 2).sum(axis=2))
    votes = np.bincount(gaps.argmin(axis=1), minlength=len(COLORS)) / inner.shape[1]
    best = int(votes.argmax())
    typical = float(np.sqrt(((np.median(inner, axis=1) - palette[best]) ** 2).sum()))
    return COLORS[best] if votes[best] >= COLOR_PURITY and typical <= COLOR_TOLERANCE else None


def _opacity(pixels: np.ndarray, blob: np.ndarray, background: np.ndarray) -> np.ndarray:
    """How much of each pixel ``(64, 64)`` the blob covers, in [0, 1], including its soft rim of one pixel."""
    from scipy import ndimage

    difference = pixels - background[:, None, None]
    strength = np.sqrt((difference[:, blob] ** 2).sum(axis=0))
    direction = np.median(difference[:, blob][:, strength >= 0.8 * np.quantile(strength, 0.9)], axis=1)
    share = np.einsum("chw,c->hw", difference, direction) / float(direction @ direction)
    return np.clip(share, 0, 1) * ndimage.binary_dilation(blob, np.ones((3, 3)))


@lru_cache(maxsize=1)
def _templates() -> tuple[np.ndarray, np.ndarray, list[tuple[str, str, float, float]]]:
    """All shapes and sizes at all half-pixel offsets: rows ``(n, window²)``, their squared norms, what each shows."""
    rows, names = [], []
    for shape in SHAPES:
        for size in SIZES:
            # A blob is found by its centre of mass, which in a triangle lies below the centre of its circle.
            mass = coverage(shape, size).sum(axis=1)
            sag = round(float(mass @ (np.arange(PATCH) + 0.5 - PATCH / 2) / mass.sum()) * 2) / 2
            for dx in _OFFSETS:
                for dy in _OFFSETS - sag:
                    whole = (int(np.floor(dx)), int(np.floor(dy)))
                    canvas = np.zeros((_WINDOW, _WINDOW), dtype=np.float32)
                    left, top = _MARGIN + whole[0], _MARGIN + whole[1]
                    canvas[top : top + PATCH, left : left + PATCH] = coverage(shape, size, dx - whole[0], dy - whole[1])
                    rows.append(canvas.ravel())
                    names.append((shape, size, float(dx), float(dy)))
    templates = np.stack(rows)
    return templates, (templates**2).sum(axis=1), names


def _read_shape(opacity: np.ndarray, x: float, y: float) -> tuple[str, str, float, float, float]:
    """Best-fitting shape and size, the overlap with it, and its centre."""
    templates, norms, names = _templates()
    column, row = round(x), round(y)
    half = _WINDOW // 2
    padded = np.pad(opacity, half)
    window = padded[row : row + _WINDOW, column : column + _WINDOW].ravel().astype(np.float32)
    overlap = 2 * (templates @ window) / (norms + float(window @ window))
    best = int(overlap.argmax())
    shape, size, dx, dy = names[best]
    return shape, size, float(overlap[best]), column + dx, row + dy
