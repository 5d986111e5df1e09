"""The page: everything a run directory holds, filled into `page.html`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmalign.core.files import write_beside
from mmalign.core.types import Status
from mmalign.evaluation.card import card_facts
from mmalign.evaluation.report.charts import interval_mark
from mmalign.evaluation.report.curves import against_truth, curve_sections, time_shares
from mmalign.evaluation.report.gallery import cards, sheets
from mmalign.evaluation.report.verdict import direction, unmoved, verdict
from mmalign.evaluation.run_record import RunRecord, read_run
from mmalign.evaluation.table import number_text

__all__ = ["report_html", "write_report"]

SHOWN = 6  # cards that stand open


def write_report(directory: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of a run directory and return its path (`report.html` inside it by default).

    Raises:
        DataError: there is no such directory. Missing or broken parts are named in the page.
    """
    path = Path(out) if out is not None else Path(directory) / "report.html"
    html = report_html(read_run(directory))
    with write_beside(path) as beside:
        beside.write_text(html, encoding="utf-8")
    return path


def report_html(record: RunRecord) -> str:
    """Return the page of one run as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    engine = Environment(
        loader=PackageLoader("mmalign.evaluation.report", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"number": number_text, "svg": Markup, "breaking": _breaking}
    engine.filters |= filters | {"signed": partial(number_text, signed=True)}
    here = Path(__file__).parent
    tone, sentence = verdict(record.summary)
    return engine.get_template("page.html").render(
        style=Markup((here / "style.css").read_text(encoding="utf-8")),
        record=record,
        verdict_tone=tone,
        verdict=sentence,
        command=str(record.environment.get("command") or ""),
        facts=_facts(record),
        marks={row.name: interval_mark(row.delta, *row.ci) for row in record.summary},
        ways={row.name: direction(row) for row in record.summary},
        lost=_lost(record),
        outside=_outside(record),
        same={row.name for row in record.summary if unmoved(row)},
        shown=SHOWN,
        against=against_truth(record),
        cards=cards(record),
        sections=curve_sections(record),
        shares=time_shares(record),
        sheets=sheets(record),
        model=card_facts(record),
        run_file=_highlighted(record.run_text),
        environment=list(_flat(record.environment)),
    )


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """What the header says, short; entries without a value are left out."""
    env, packages = record.environment, record.environment.get("packages") or {}
    steps = int(record.metrics[-1]["step"]) if record.metrics else 0
    method = [str((record.run.get(key) or {}).get("name") or "") for key in ("objective", "policy", "adapter")]
    versions = [
        f"{name} {packages[name]}" for name in ("mmalign", "torch", "diffusers", "transformers") if name in packages
    ]
    facts = {
        "Method": " · ".join(filter(None, method)),
        "Steps": f"{steps:,}" if steps else "",
        "Duration": _duration(record),
        "Device": str(env.get("device", "")),
        "Started": str(env.get("started", "")).replace("T", " ").removesuffix("+00:00"),
        "Versions": ", ".join(versions),
    }
    return [(name, value) for name, value in facts.items() if value]


def _duration(record: RunRecord) -> str:
    seconds = record.seconds
    if seconds is None:
        seconds = sum(v for line in record.metrics for k, v in line.items() if k.startswith("time/"))
    if not seconds:
        return ""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return (
        f"{hours} h {minutes % 60} min"
        if hours
        else f"{minutes} min {seconds % 60:.0f} s"
        if minutes
        else f"{seconds:.1f} s"
    )


def _lost(record: RunRecord) -> list[tuple[str, int, int]]:
    """Rewards with rows that lack a score they should have after training: (name, such rows, rows)."""
    if record.after is None:
        return []
    outside = {name: count for name, count, _ in _outside(record)}
    counts = [(name, record.after.invalid(name) - outside.get(name, 0)) for name in record.after.names()]
    return [(name, count, len(record.after.prompts)) for name, count in counts if count]


def _outside(record: RunRecord) -> list[tuple[str, int, int]]:
    """Rewards with rows that they do not apply to: (name, such rows, rows)."""
    if record.after is None:
        return []
    counts = {n: int((s.status == int(Status.NOT_APPLICABLE)).sum()) for n, s in record.after.scores.items()}
    return [(name, count, len(record.after.prompts)) for name, count in counts.items() if count]


def _breaking(text: str) -> Markup:
    """A name that may be broken after its separators, and nowhere else."""
    return Markup(re.sub(r"([/._:-])(?=\w)", r"\1<wbr>", escape(str(text))))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Any:
    """Nested environment facts as (dotted name, text)."""
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{name}.")
        else:
            yield name, ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)


def _highlighted(text: str) -> Markup:
    """YAML with its keys set apart."""
    marked = re.sub(r"(?m)^([ -]*)([\w./-]+)(:)(?= |$)", r'\1<span class="key">\2</span>\3', escape(text, quote=False))
    return Markup(marked)
