"""Two runs on one page: which is better, by how much, on which prompts, and what differs between their run files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mmalign.core.files import write_beside
from mmalign.evaluation.card import CardFacts, card_facts
from mmalign.evaluation.compare import Comparison, compare, compare_runs, unlike_measures
from mmalign.evaluation.folders import run_above
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.gallery import cards
from mmalign.evaluation.report.page import shared, smallest
from mmalign.evaluation.report.provenance import flat, provenance
from mmalign.evaluation.report.words import Words
from mmalign.evaluation.run_record import RunRecord, read_numbers
from mmalign.evaluation.table import Role, same_noise, summarize
from mmalign.evaluation.verdict import comparison_verdict

__all__ = ["Compared", "Difference", "compared_html", "open_compared", "page_of", "write_compared"]

SECTIONS = {
    "results": "Results",
    "wins": "Wins and losses",
    "pairs": "Side by side",
    "parts": "Parts of scores",
    "subsets": "Subsets",
    "settings": "Run files",
    "provenance": "Provenance",
}


@dataclass(frozen=True)
class Difference:
    """What is said of both runs under one name; "–" where one says nothing."""

    name: str
    first: str
    second: str


@dataclass
class Compared:
    """Two runs, the folders of the evaluations that are compared, and those with what was kept of outputs."""

    names: tuple[str, str]
    folders: tuple[Path, Path]
    evaluations: tuple[Evaluation, Evaluation]
    records: tuple[RunRecord, RunRecord]
    verdicts: list[Comparison] = field(default_factory=list)

    @property
    def unlike(self) -> list[str]:
        """`unlike_measures` of the two run files."""
        return unlike_measures([one.name for one in self.verdicts], *(record.run for record in self.records))


def page_of(a: Path, b: Path) -> Path:
    """Where the page of B against A lies unless told otherwise: in B, by A's name."""
    return b / "compared" / f"{a.resolve().name}.html"


def write_compared(compared: Compared, path: Path) -> Path:
    """Write the page and return its path."""
    html = compared_html(compared)
    with write_beside(path) as beside:
        beside.write_text(html, encoding="utf-8")
    return path


def open_compared(a: Path, b: Path) -> Compared:
    """Read what `compare_runs` compares, with outputs; runs of one name are told apart by their folders.

    Raises:
        DataError: a directory without an evaluation, or no two of the same prompts.
    """
    _, folders = compare_runs(a, b)
    one, two = (Evaluation.load(folder, sounds=False) for folder in folders)
    names = (a.resolve().name, b.resolve().name)
    if names[0] == names[1]:
        names = (str(a), str(b))
    records = (_record(a, folders[0]), _record(b, folders[1]))
    return Compared(names, folders, (one, two), records, compare(one, two))


def _record(run: Path, folder: Path) -> RunRecord:
    """A run's numbers, with the run file that the evaluation in `folder` was made by."""
    record, made_by = read_numbers(run), run_above(folder)
    if not record.run and made_by:  # `run` is the evaluation alone
        record = read_numbers(made_by)
    elif made_by and made_by != record.path:
        record.run = read_numbers(made_by).run
    return record


def compared_html(compared: Compared) -> str:
    """Return the page as text, of less than `LARGEST` bytes wherever smaller pictures can do that."""
    first, second = compared.evaluations
    words = Words.of_runs(*compared.names, same_noise=same_noise(first, second))
    both = _as_one(compared)
    models = [card_facts(record) for record in compared.records]
    files = [dict(flat(record.run)) for record in compared.records]
    alike = [row for row in both.summary if row.name not in compared.unlike]
    filled = shared(both, comparison_verdict(alike, compared.names)) | {
        "unlike": compared.unlike,
        "title": f"{compared.names[1]} against {compared.names[0]}",
        "words": words,
        "sections_of_page": SECTIONS,
        "model": models[1],
        "what": _what(compared),
        "verdicts": {one.name: one for one in compared.verdicts},
        "roles": {row.name: _roles(row.name, compared) for row in both.summary},
        "settings": _differences(files[0], files[1]),
        "read": [bool(record.run) for record in compared.records],
        "provenance": _provenance(compared, models),
    }
    return smallest("compared.html", filled, lambda detail: {"cards": cards(both, detail, words)})


def _as_one(compared: Compared) -> RunRecord:
    """Both as the two sides of one record, which is what the sections of a page are made from."""
    first, second = compared.evaluations
    one, two = compared.records
    both = RunRecord(two.path, run=two.run)
    if first.modality == second.modality:
        both.before, both.after = first, second
    both.summary = summarize(first, second, _truest(one.roles, two.roles))
    return both


def _truest(one: dict[str, Role], two: dict[str, Role]) -> dict[str, Role]:
    """Trained on where either run was; else a verifier where either calls it so."""
    roles: dict[str, Role] = {}
    for name in (*one, *two):
        values = {one.get(name), two.get(name)}
        roles[name] = "trained" if "trained" in values else "verifier" if "verifier" in values else "judge"
    return roles


def _roles(name: str, compared: Compared) -> list[str]:
    """What a reward is in the runs: one word, or by run where they differ."""
    values = [record.roles.get(name, "judge") for record in compared.records]
    if values[0] == values[1]:
        return []
    return [f"{role} in {run}" for role, run in zip(values, compared.names, strict=True)]


def _what(compared: Compared) -> str:
    first, _ = compared.evaluations
    prompts = len(set(first.group.tolist()))
    each = f", {first.repeats} outputs each" if first.repeats > 1 else ""
    return f"{compared.names[1]} against {compared.names[0]} on the same {prompts:,} prompts{each}, {_noise(compared)}."


def _noise(compared: Compared) -> str:
    return "from the same noise" if same_noise(*compared.evaluations) else "from different noise"


def _provenance(compared: Compared, models: list[CardFacts]) -> tuple[list[Difference], list[Difference]]:
    """Where both came from: what differs, and what is the same."""
    sides: list[dict[str, str]] = []
    for record, model, folder in zip(compared.records, models, compared.folders, strict=True):
        steps = int(record.metrics[-1]["step"]) if record.metrics else 0
        sides.append(
            {"Evaluation": str(folder), "Steps": f"{steps:,}" if steps else ""} | dict(provenance(record, model))
        )
    names = [name for name in dict.fromkeys(name for side in sides for name in side) if any(s.get(name) for s in sides)]
    rows = [Difference(name, *(side.get(name) or "–" for side in sides)) for name in names]
    return [row for row in rows if row.first != row.second], [row for row in rows if row.first == row.second]


def _differences(first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    """The keys of two run files whose values differ, in the order of the files; not where their paths start."""
    rows = [Difference(key, first.get(key, "–"), second.get(key, "–")) for key in dict.fromkeys((*first, *second))]
    return [row for row in rows if row.first != row.second and row.name != "base"]
