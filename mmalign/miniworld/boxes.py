"""Where things stand in a picture: their boxes in whole pixels, and how the scenes' model writes them."""

from functools import lru_cache

import numpy as np

from mmalign.miniworld.language import Description
from mmalign.miniworld.scenes import IMAGE_SIZE, PATCH, Scene, Thing, coverage

Box = tuple[int, int, int, int]
#: Pixels that a loosely drawn box leaves free on each side.
MARGIN = 4


def box_of(thing: Thing) -> Box:
    """``(x1, y1, x2, y2)`` around the pixels of which a thing covers half or more; x2 and y2 lie behind the last."""
    x, y = round(thing.x * 2) / 2, round(thing.y * 2) / 2
    column, row = int(np.floor(x)), int(np.floor(y))
    left, top, right, bottom = _extent(thing.shape, thing.size, x - column, y - row)
    corners = (column + left, row + top, column + right, row + bottom)
    x1, y1, x2, y2 = (int(min(max(value, 0), IMAGE_SIZE)) for value in corners)
    return x1, y1, x2, y2


@lru_cache(maxsize=512)
def _extent(shape: str, size: str, dx: float, dy: float) -> Box:
    """The box of a shape whose centre lies ``dx`` and ``dy`` from the middle of a patch, from that middle."""
    rows, columns = np.nonzero(coverage(shape, size, dx, dy) >= 0.5)
    half = PATCH // 2
    edges = columns.min() - half, rows.min() - half, columns.max() + 1 - half, rows.max() + 1 - half
    left, top, right, bottom = (int(edge) for edge in edges)
    return left, top, right, bottom


def boxes_of(scene: Scene, kind: Description) -> list[Box]:
    """Boxes of all things of a kind, from left to right."""
    return sorted(box_of(thing) for thing in scene.things if kind.fits(thing))


def loosened(box: Box) -> Box:
    """A box as one draws it in haste, with `MARGIN` around the thing, inside the picture."""
    x1, y1, x2, y2 = box
    return max(x1 - MARGIN, 0), max(y1 - MARGIN, 0), min(x2 + MARGIN, IMAGE_SIZE), min(y2 + MARGIN, IMAGE_SIZE)


def write_boxes(boxes: list[Box]) -> str:
    """Boxes as the model writes them, one token a number: ``[ 12 , 20 , 25 , 33 ]``."""
    return " ".join(f"[ {' , '.join(map(str, box))} ]" for box in boxes)
