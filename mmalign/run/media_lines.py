"""What becomes of given pictures and sounds, in sentences for people: told by `--dry-run` and when a run starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mmalign.core.types import Placement
from mmalign.data.intake import FittedRows, samples_at
from mmalign.media.audio import SoundShape
from mmalign.media.sound_fit import SoundTarget

__all__ = ["media_lines", "row_lines"]

ROWS = 20  # that are told one by one


def media_lines(items: Sequence[Any]) -> list[str]:
    """A sentence or two about all outputs of the rows to train on, [] where they are texts or nothing is given."""
    if not isinstance(items, FittedRows):
        return []
    if isinstance(items.target, SoundTarget):
        return [_sounds(items, items.target)]
    lines = [_pictures(items)]
    if items.options.buckets:
        counted = ", ".join(f"{_size(size)}: {count}" for size, count in Counter(items.buckets).most_common())
        lines.append(f"data.buckets (width x height): {counted}.")
    return lines


def row_lines(items: Sequence[Any]) -> list[str]:
    """What becomes of single outputs, the first 20 that are changed."""
    lines: list[str] = []
    for line in _each(items) if isinstance(items, FittedRows) else ():
        if len(lines) == ROWS:
            return [*lines, "and so on."]
        lines.append(line)
    return lines


def _each(items: FittedRows) -> Iterator[str]:
    for place, shape, laid in items.plan():
        change = _of_picture(laid) if laid is not None else _of_sound(shape, items)
        if change:
            yield f"{place}: {change}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _of_picture(laid: Placement) -> str:
    if not laid.changes:
        return ""
    crop = f", {laid.cropped:.0%} of it cropped" if laid.cropped else ""
    band = ", bands of the ground beside it" if min(laid.corner) < 0 else ""
    return f"{_size(laid.original)} → {_size(laid.size)}, scaled to {_size(laid.scaled)}{crop}{band}"


def _of_sound(shape: SoundShape, items: FittedRows) -> str:
    target = items.target
    assert isinstance(target, SoundTarget)
    changes = []
    if shape.rate != target.rate:
        changes.append(f"{shape.rate} → {target.rate} Hz")
    if shape.channels != target.channels:
        changes.append(f"{shape.channels} → {target.channels} channels")
    if target.samples and samples_at(shape, target) > target.samples:
        changes.append(f"{shape.samples / shape.rate:g} s, cut: {items.options.cut}")
    return ", ".join(changes)


def _pictures(items: FittedRows) -> str:
    laid = [place for _, _, place in items.plan() if place is not None]
    changed = [place for place in laid if place.changes]
    sizes = Counter(place.original for place in laid)
    smallest, largest = (choose(sizes, key=lambda s: s[0] * s[1]) for choose in (min, max))
    of_sizes = (
        f"of {len(sizes)} sizes from {_size(smallest)} to {_size(largest)}" if len(sizes) > 1 else _size(smallest)
    )
    wanted = "the shapes below" if items.options.buckets else _size(items.size(0))
    if not changed:
        return f"data: {len(laid)} pictures, all {of_sizes} (width x height), as the run makes them."
    parts = [f"data: {len(laid)} pictures {of_sizes} (width x height); {len(changed)} are scaled to {wanted}"]
    parts.append(f"(data.fit: {items.options.fit})")
    if larger := [place.enlarged for place in changed if place.enlarged > 1]:
        parts.append(f"· {len(larger)} of them are enlarged, up to {max(larger):.2g} times")
    if cropped := [place.cropped for place in changed if place.cropped]:
        parts.append(f"· {len(cropped)} are cropped, of their area up to {max(cropped):.0%}")
    if bands := sum(min(place.corner) < 0 for place in changed):
        parts.append(f"· {bands} get bands of {items.options.ground}")
    return f"{' '.join(parts).replace(' ·', ',')}."


def _sounds(items: FittedRows, target: SoundTarget) -> str:
    shapes: list[SoundShape] = [shape for _, shape in items.shapes()]
    seconds = sorted(shape.samples / shape.rate for shape in shapes)
    parts = [f"data: {len(shapes)} sounds of {seconds[0]:.3g} to {seconds[-1]:.3g} s, {sum(seconds) / 60:.3g} minutes"]
    if others := Counter(shape.rate for shape in shapes if shape.rate != target.rate):
        rates = ", ".join(f"{count} of {rate} Hz" for rate, count in sorted(others.items()))
        parts.append(f"{others.total()} are resampled to {target.rate} Hz ({rates})")
    if dull := sum(shape.rate < target.rate / 2 for shape in shapes):
        parts.append(f"{dull} hold nothing of the upper half of what the run makes")
    if mixed := sum(shape.channels != target.channels for shape in shapes):
        parts.append(f"{mixed} are brought to {target.channels} channel{'s' * (target.channels != 1)}")
    parts += _lengths(items, target, shapes)
    return f"{', '.join(parts)}."


def _lengths(items: FittedRows, target: SoundTarget, shapes: Sequence[SoundShape]) -> list[str]:
    if target.samples is None:
        return []
    longest = target.samples / target.rate
    over = [samples_at(shape, target) / target.rate - longest for shape in shapes]
    parts = []
    if longer := [seconds for seconds in over if seconds > 0]:
        lost = f"{sum(longer) / 60:.3g} minutes are not heard"
        what = {
            "start": f"of which the beginning stays ({lost})",
            "random": "of which each pass hears another stretch",
            "windows": f"which become windows: {len(items)} rows in all",
        }.get(items.options.cut, "")
        parts.append(f"{len(longer)} are longer than {longest:g} s (data.cut: {items.options.cut}), {what}")
    if shorter := sum(seconds < 0 for seconds in over):
        parts.append(f"{shorter} are shorter than {longest:g} s, silence follows them")
    return parts
