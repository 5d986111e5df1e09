"""Charts as inline SVG text, coloured by the page's style sheet so that they follow dark mode.

Classes: `learned`, `truth`, `plain` give a series its colour; `grid`, `tick`, `raw`, `line`, `dot` its parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Scale",
    "Series",
    "aligned_chart",
    "interval_mark",
    "line_chart",
    "path_chart",
    "smoothed",
    "standalone",
    "ticks",
]

Point = tuple[float, float]
MOST_POINTS = 400


class Series(NamedTuple):
    """A named curve; `tone` is its class: learned, truth or plain."""

    name: str
    points: Sequence[Point]
    tone: str = "plain"


class Scale(NamedTuple):
    """Data from low to high onto pixels from start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel at which a value is drawn."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) inside [low, high], `about` of them or some more."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (5, 2.5, 2, 1) if m * power <= rough * 1.001)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """A centred moving average over about a fifteenth of the curve; short curves (under 30 points) stay as they are."""
    half = len(points) // 30
    if not half:
        return list(points)
    values = [y for _, y in points]
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [(x, sum(w) / len(w)) for (x, _), w in zip(points, windows, strict=True)]


def line_chart(series: Series, whole: bool = False, smooth: bool = True, width: int = 320, height: int = 150) -> str:
    """One metric over steps: the values faintly and their moving average on top; a few points get a dot each.

    `whole` keeps zero in view (for times and memory).
    """
    points = _thinned(series.points)
    trend = smoothed(points) if smooth else points
    low, high = _padded(min(y for _, y in points), max(y for _, y in points), whole)
    x = Scale(*_apart(points[0][0], points[-1][0]), 44, width - 14)
    y = Scale(low, high, height - 22, 10)
    body = [_y_axis(y, ticks(low, high, 2), width - 14), _x_axis(x, height - 22, points[-1][0])]
    body.append(_curve(points, trend, x, y, series.tone))
    marked = trend if len(trend) <= 30 else trend[-1:]
    body += [_dot(x(s), y(v), series.tone, f"{series.name}: {_label(v)} at step {s:g}") for s, v in marked]
    return _svg(width, height, f"{series.name} over steps", body)


def aligned_chart(learned: Series, truth: Series, width: int = 460, height: int = 260) -> str:
    """Two series on their own axes, shifted so that both start at the same height.

    Each axis spans its series' largest departure from its start (for a truth that is a rate at least 0.2, so that noise
    stays small); a learned reward that climbs while the truth sinks opens like scissors.
    """
    sides = [_thinned(learned.points), _thinned(truth.points)]
    trends = [smoothed(side) for side in sides]
    spans = [_span(sides[0], 0.0), _span(sides[1], 0.2)]
    below = max(max((t[0][1] - v) / s for _, v in side) for side, t, s in zip(sides, trends, spans, strict=True))
    above = max(max((v - t[0][1]) / s for _, v in side) for side, t, s in zip(sides, trends, spans, strict=True))
    below, above = max(below, 0.08) + 0.04, max(above, 0.08) + 0.04
    x = Scale(*_apart(min(s[0][0] for s in sides), max(s[-1][0] for s in sides)), 48, width - 48)
    body = [_x_axis(x, height - 24, max(s[-1][0] for s in sides), "step")]
    for side, trend, span, series in zip(sides, trends, spans, (learned, truth), strict=True):
        start = trend[0][1]
        y = Scale(start - below * span, start + above * span, height - 24, 12)
        left = series is learned
        for tick in [t for t in ticks(y.low, y.high, 3) if _possible(t, side)]:
            if left:
                body.append(f'<line class="grid" x1="48" x2="{width - 48}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
            at, anchor = (42, "end") if left else (width - 42, "start")
            body.append(
                f'<text class="tick {series.tone}" x="{at}" y="{y(tick) + 4:.1f}" text-anchor="{anchor}">'
                f"{_label(tick)}</text>"
            )
        body.append(_curve(side, trend, x, y, series.tone))
        if len(side) <= 30:
            body += [_dot(x(s), y(v), series.tone, f"{series.name}: {_label(v)} at step {s:g}") for s, v in side]
    return _svg(width, height, f"{learned.name} (left axis) and {truth.name} (right axis) over steps", body)


def path_chart(learned: Series, truth: Series, width: int = 460, height: int = 260) -> str:
    """Return where the run went: learned reward across, truth up, one dot per point of `truth`, from start to end.

    Up and to the right is alignment; to the right and down is reward hacking.
    """
    curve = smoothed(learned.points)
    points = [(_at(curve, step), value, step) for step, value in _thinned(truth.points)]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x = Scale(*_padded(min(xs), max(xs)), 48, width - 20)
    y = Scale(*_padded(min(ys), max(ys), room=0.12), height - 36, 12)
    body = [_y_axis(y, ticks(y.low, y.high, 3), width - 20, 48)]
    body += [
        f'<text class="tick" x="{x(tick):.1f}" y="{height - 21}" text-anchor="middle">{_label(tick)}</text>'
        for tick in ticks(x.low, x.high, 3)
    ]
    body.append(
        f'<text class="tick strong" x="{(48 + width - 20) / 2}" y="{height - 5}" text-anchor="middle">'
        f"{escape(learned.name)} →</text>"
    )
    body.append(f'<polyline class="line path" points="{_path([(x(a), y(b)) for a, b, _ in points])}"/>')
    for i, (a, b, step) in enumerate(points):
        title = f"step {step:g}: {learned.name} {_label(a)}, {truth.name} {_label(b)}"
        body.append(_dot(x(a), y(b), "start" if i == 0 else "truth", title, 4.5 if i in (0, len(points) - 1) else 2.5))
    ends = [(points[0], points[1], "start"), (points[-1], points[-2], f"step {points[-1][2]:g}")]
    if abs(x(points[0][0]) - x(points[-1][0])) < 60 and abs(y(points[0][1]) - y(points[-1][1])) < 30:
        ends = [(points[-1], points[-2], f"start and {ends[1][2]}")]  # one would lie on the other
    for (a, b, _), near, word in ends:
        anchor = "end" if x(a) > width - 70 else "start" if x(a) < 80 else "middle"
        at, under = x(a) + {"end": 6, "start": -6, "middle": 0}[anchor], near[1] >= b  # away from the neighbour
        height_of = y(b) + (17 if under else -9)
        body.append(f'<text class="tick strong" x="{at:.1f}" y="{height_of:.1f}" text-anchor="{anchor}">{word}</text>')
    return _svg(width, height, f"{truth.name} against {learned.name}, from the first step to the last", body)


def interval_mark(value: float, low: float, high: float, width: int = 150) -> str:
    """Return a change with its interval against zero, on an axis that reaches as far to both sides."""
    if not all(map(math.isfinite, (value, low, high))):
        return ""
    reach = max(abs(low), abs(high), abs(value)) or 1.0
    x = Scale(-reach, reach, 6, width - 6)
    tone = "good" if low > 0 else "bad" if high < 0 else "even"
    body = [
        f'<line class="zero" x1="{width / 2}" x2="{width / 2}" y1="2" y2="20"/>',
        f'<line class="span {tone}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="11" y2="11"/>',
        f'<circle class="mark {tone}" cx="{x(value):.1f}" cy="11" r="4"/>',
    ]
    return _svg(width, 22, f"change {_label(value)}, interval {_label(low)} to {_label(high)}, against zero", body)


def standalone(chart: str, width: int = 460) -> str:
    """A chart as an SVG file of its own, with the page's style sheet ``width`` pixels wide; follows dark mode too."""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    root = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
    opening, inside = chart.replace("<svg ", root, 1).split(">", 1)
    return f"{opening}><style>{style}</style>{inside}\n"


def _curve(points: Sequence[Point], trend: Sequence[Point], x: Scale, y: Scale, tone: str) -> str:
    raw = f'<polyline class="raw {tone}" points="{_path([(x(a), y(b)) for a, b in points])}"/>'
    line = f'<polyline class="line {tone}" points="{_path([(x(a), y(b)) for a, b in trend])}"/>'
    return (raw if len(points) >= 30 else "") + line


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _dot(x: float, y: float, tone: str, title: str, radius: float = 3) -> str:
    return f'<circle class="dot {tone}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(title)}</title></circle>'


def _y_axis(y: Scale, at: Sequence[float], right: float, left: float = 44) -> str:
    return "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_label(t)}</text>'
        for t in at
    )


def _x_axis(x: Scale, bottom: float, last: float, word: str = "") -> str:
    marks = [t for t in ticks(x.low, x.high, 3) if t == int(t)]
    return f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{bottom}" y2="{bottom}"/>' + "".join(
        f'<text class="tick" x="{x(t):.1f}" y="{bottom + 15}" text-anchor="middle">'
        f"{word + ' ' if word and t == marks[-1] else ''}{_label(t)}</text>"
        for t in marks
    )


def _svg(width: int, height: int, title: str, body: Sequence[str]) -> str:
    inside = "".join(body)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{inside}</svg>'


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points: neighbours are averaged."""
    size = -(-len(points) // MOST_POINTS)
    if size == 1:
        return list(points)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(v for _, v in part) / len(part)) for part in parts]


def _at(points: Sequence[Point], step: float) -> float:
    """The curve at `step`, linear between its points and level beyond them."""
    after = next((i for i, (s, _) in enumerate(points) if s >= step), len(points))
    if after in (0, len(points)):
        return points[min(after, len(points) - 1)][1]
    (a, u), (b, v) = points[after - 1], points[after]
    return u + (v - u) * (step - a) / (b - a)


def _span(points: Sequence[Point], least: float) -> float:
    """The largest departure from the start, at least `least` for values in [0, 1], else a twentieth of the start."""
    start = points[0][1]
    departure = max(abs(v - start) for _, v in points)
    rate = least and all(0 <= v <= 1 for _, v in points)
    return max(departure, least if rate else 0.05 * abs(start)) or 1.0


def _padded(low: float, high: float, whole: bool = False, room: float = 0.06) -> tuple[float, float]:
    """A little room around the data; `whole` starts at zero, and what is never negative has no axis below it."""
    around = (high - low) * room or abs(high) * 0.1 or 1.0
    return (max(0.0, low - around) if low >= 0 and not whole else 0.0 if low >= 0 else low - around), high + around


def _possible(tick: float, points: Sequence[Point]) -> bool:
    """Is it a value that such a series can have: not negative where none is, at most 1 where all are shares?"""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    return not (low >= 0 and tick < -1e-9) and not (low >= 0 and high <= 1 and tick > 1 + 1e-9)


def _apart(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 1, high + 1)


def _label(value: float) -> str:
    """A number as short as an axis wants it."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{value:.4g}".replace("-", "−")
