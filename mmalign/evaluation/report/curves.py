"""Which curves to draw: every metric once as a small chart, and learned rewards against truth."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmalign.evaluation.report.charts import Series, aligned_chart, line_chart, path_chart
from mmalign.evaluation.run_record import RunRecord

__all__ = ["Against", "Section", "against_truth", "curve_sections", "time_shares"]

TITLES = {
    "reward": "Rewards on training prompts",
    "eval": "Rewards on held-out prompts",
    "policy": "Policy",
    "objective": "Objective",
    "grad": "Optimisation",
    "time": "Seconds per step",
    "memory": "Memory",
}
#: The heading of a metric's first word, where that is not one by itself.
UNDER = {
    **dict.fromkeys(("kl", "ratio"), "policy"),
    **dict.fromkeys(("advantage", "margin", "fit", "score", "pairs", "rows", "sft"), "objective"),
    **dict.fromkeys(("lr", "loss", "update", "gradient"), "grad"),
}
LOOSE = "Other"


@dataclass
class Section:
    """Small charts under one heading; metrics that never moved are told in a sentence instead."""

    title: str
    charts: list[tuple[str, float, str]] = field(default_factory=list)  # name, last value, picture
    constant: list[tuple[str, float]] = field(default_factory=list)
    once: list[tuple[str, float, float]] = field(default_factory=list)  # name, value, step


@dataclass
class Against:
    """One learned reward against one truth: their names, the role of the truth, and two drawings as SVG."""

    learned: str
    truth: str
    role: str
    over_steps: str
    path: str


def curve_sections(record: RunRecord) -> list[Section]:
    """Every metric of the run, grouped by the word before its first slash; known groups first."""
    by_title: dict[str, Section] = {}
    for name in record.metric_names():
        first = name.split("/")[0] if "/" in name or name in UNDER else ""
        head = UNDER.get(first, first)
        title = TITLES.get(head, head.capitalize() if head else LOOSE)
        section = by_title.setdefault(title, Section(title))
        points = record.curve(name)
        values = {value for _, value in points}
        if len(points) == 1 < len(record.metrics):
            section.once.append((name, points[0][1], points[0][0]))
        elif len(values) == 1:
            section.constant.append((name, values.pop()))
        elif points:
            series, whole = Series(name, points, _tone(record, name)), head in ("time", "memory")
            section.charts.append((name, points[-1][1], line_chart(series, whole, smooth=name != "lr")))
    order = [*TITLES.values()]
    return sorted(by_title.values(), key=lambda s: order.index(s.title) if s.title in order else len(order))


def _tone(record: RunRecord, name: str) -> str:
    parts = name.split("/")
    role = record.roles.get(parts[1]) if parts[0] in ("reward", "eval") and len(parts) == 2 else None
    return {"trained": "learned", "verifier": "truth"}.get(role or "", "plain")


def against_truth(record: RunRecord) -> list[Against]:
    """Each trained reward against the verifiers (without any: the judges); charts need two points of each."""
    roles = record.roles
    trained = [name for name, role in roles.items() if role == "trained"]
    truths = [name for name, role in roles.items() if role == "verifier"]
    truths = truths or [name for name, role in roles.items() if role == "judge"]
    pairs = []
    for truth in truths[:2]:
        for learned in trained[:3]:
            left, right, where = _on_one_side(record, learned, truth)
            if len(left) >= 2 and len(right) >= 2:
                one, two = Series(learned + where, left, "learned"), Series(truth + where, right, "truth")
                pairs.append(Against(learned, truth, roles[truth], aligned_chart(one, two), path_chart(one, two)))
    return pairs


Curve = list[tuple[float, float]]


def _on_one_side(record: RunRecord, learned: str, truth: str) -> tuple[Curve, Curve, str]:
    """Both on held-out prompts, or both on training prompts, which their names then say; never one of each."""
    held_out = _held_out(record, learned), _held_out(record, truth)
    training = record.curve(f"reward/{learned}"), record.curve(f"reward/{truth}")
    if min(map(len, held_out)) < 2 <= min(map(len, training)):
        return *training, " (training prompts)"
    return *held_out, ""


def _held_out(record: RunRecord, reward: str) -> Curve:
    """The evaluations along the way, with those before and after as ends."""
    values = dict(record.curve(f"eval/{reward}"))
    row = next((row for row in record.summary if row.name == reward), None)
    if row is not None and row.before == row.before and record.metrics:
        values = {0.0: row.before, **values, record.metrics[-1]["step"]: row.after}
    return sorted(values.items())


def time_shares(record: RunRecord) -> list[tuple[str, float, float]]:
    """Stations by their mean seconds per step: (name, seconds, share), the longest first."""
    steps = len(record.metrics)
    names = [name for name in record.metric_names() if name.startswith("time/")]
    means = {name.removeprefix("time/"): sum(v for _, v in record.curve(name)) / steps for name in names}
    total = sum(means.values())
    return [(n, s, s / total) for n, s in sorted(means.items(), key=lambda item: -item[1]) if s > 0]
