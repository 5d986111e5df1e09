"""The page: everything a run directory holds, filled into the templates of this folder."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmalign.core.files import write_beside
from mmalign.core.types import Status
from mmalign.evaluation.card import card_facts
from mmalign.evaluation.progress import progress_of
from mmalign.evaluation.report.charts import interval_mark
from mmalign.evaluation.report.curves import against_truth, curve_sections, time_shares
from mmalign.evaluation.report.detail import LARGEST, LEVELS, Detail
from mmalign.evaluation.report.gallery import cards
from mmalign.evaluation.report.parts import reward_parts
from mmalign.evaluation.report.provenance import header_facts, provenance, what_was_run
from mmalign.evaluation.report.sheets import sheets
from mmalign.evaluation.report.subsets import subsets
from mmalign.evaluation.report.words import Words
from mmalign.evaluation.run_record import RunRecord, read_run
from mmalign.evaluation.table import number_text
from mmalign.evaluation.verdict import direction, unmoved, verdict

__all__ = ["report_html", "shared", "smallest", "write_report"]

SHOWN, HEADLINE = 6, 4  # cards that stand open, measures in the header
SECTIONS = {
    "results": "Results",
    "truth": "Reward and truth",
    "pairs": "Before and after",
    "parts": "Parts of scores",
    "subsets": "Subsets",
    "curves": "Curves",
    "samples": "Samples",
    "model": "Model",
    "run": "Run file",
    "provenance": "Provenance",
}


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


def report_html(record: RunRecord, live: str = "") -> str:
    """Return the page of one run as text, of less than `LARGEST` bytes wherever smaller pictures can do that.

    `live` names the state of the directory, for the page that a server shows while the run goes: it asks that server,
    and nothing else, whether the state is another one.
    """
    return smallest(
        "page.html",
        _filled(record, live),
        lambda detail: {"cards": cards(record, detail), "sheets": sheets(record, detail)},
    )


def _filled(record: RunRecord, live: str) -> dict[str, Any]:
    """Everything but media."""
    model = card_facts(record)
    return shared(record, verdict(record.summary), live) | {
        "title": record.name,
        "words": Words(),
        "sections_of_page": SECTIONS,
        "progress": progress_of(record),
        "what": what_was_run(record, model),
        "command": str(record.environment.get("command") or ""),
        "facts": header_facts(record),
        "lost": _lost(record),
        "outside": _outside(record),
        "against": against_truth(record),
        "sections": curve_sections(record),
        "shares": time_shares(record),
        "model": model,
        "run_file": _highlighted(record.run_text),
        "provenance": provenance(record, model),
    }


def shared(record: RunRecord, toned: tuple[str, str], live: str = "") -> dict[str, Any]:
    """What all pages have: style, script, the `toned` verdict (tone and sentence), its measures, parts and subsets."""
    tone, sentence = toned
    headline, _, rest = sentence.partition(": ")
    script = _file("page.js") + (_file("live.js") if live else "")
    return {
        "record": record,
        "style": Markup(_file("style.css") + _file("cards.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "live": live,
        "verdict_tone": tone,
        "verdict": headline if rest else sentence,
        "verdict_told": rest,
        "headline": _headline(record),
        "marks": {row.name: interval_mark(row.delta, *row.ci) for row in record.summary},
        "ways": {row.name: direction(row) for row in record.summary},
        "same": {row.name for row in record.summary if unmoved(row)},
        "shown": SHOWN,
        "parts": reward_parts(record),
        "subsets": subsets(record),
    }


def smallest(template: str, filled: Mapping[str, Any], media: Callable[[Detail], Mapping[str, Any]]) -> str:
    """The page with as much of its media as keeps it under `LARGEST` bytes, or at the last level as it is."""
    html = ""
    for level in LEVELS:
        detail = Detail(**level)  # type: ignore[arg-type]
        made = media(detail)
        html = _rendered(template, {**filled, **made, "left_out": list(detail.sentences)})
        if len(html.encode()) <= LARGEST:
            break
    return html


def _rendered(template: str, filled: Mapping[str, Any]) -> str:
    """A page of a template of this folder; `filled` has what all pages share (`shared`) and its own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    engine = Environment(
        loader=PackageLoader("mmalign.evaluation.report", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"number": number_text, "svg": Markup, "breaking": _breaking}
    engine.filters |= filters | {"signed": partial(number_text, signed=True), "mark": interval_mark}
    return engine.get_template(template).render(filled)


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _headline(record: RunRecord) -> list[Any]:
    """The measures of the header: trained rewards and verifiers by turns, then judges."""
    by_role = {role: [row for row in record.summary if row.role == role] for role in ("trained", "verifier", "judge")}
    first = [*by_role["trained"][:2], *by_role["verifier"][:2]]
    return [*first, *by_role["judge"][: HEADLINE - len(first)]][:HEADLINE]


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


def _highlighted(text: str) -> Markup:
    """YAML with its keys set apart."""
    marked = re.sub(r"(?m)^([ -]*)([\w./-]+)(:)(?= |$)", r'\1<span class="key">\2</span>\3', escape(text, quote=False))
    return Markup(marked)
