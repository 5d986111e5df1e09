"""Pairs of outputs that two runs, or a run and its start, made of the same prompts, as their evaluations kept them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from filecmp import cmp
from functools import cached_property
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError
from mmalign.core.files import write_folder_beside
from mmalign.core.types import Prompt
from mmalign.demo.votes import WORTH, Vote
from mmalign.evaluation.compare import compare_runs
from mmalign.evaluation.folders import evaluation_folders
from mmalign.evaluation.records import Evaluation
from mmalign.media.image import write_image

__all__ = ["START", "OutputPairs", "open_pairs", "write_preferences"]

START = "start"


@dataclass(frozen=True)
class OutputPairs:
    """A and B, their evaluations of the same prompts, and where those lie; the first `count` rows have both outputs."""

    names: tuple[str, str]
    folders: tuple[Path, Path]
    a: Evaluation
    b: Evaluation

    @property
    def count(self) -> int:
        """How many rows have both outputs."""
        return min(self.a.kept, self.b.kept)

    @cached_property
    def same(self) -> frozenset[int]:
        """Rows whose two outputs are one text, or one file byte for byte: there is nothing to vote on."""
        if self.a.modality == "text":
            return frozenset(row for row in range(self.count) if self.a.outputs[row] == self.b.outputs[row])
        return frozenset(row for row in range(self.count) if cmp(self.a.files[row], self.b.files[row], shallow=False))

    @property
    def about(self) -> dict[str, str]:
        """What votes on these pairs are about."""
        questions = "\n".join(str(prompt.question) for prompt in self.a.prompts)
        folders = {name: str(folder.resolve()) for name, folder in zip("ab", self.folders, strict=True)}
        return folders | {"prompts": hashlib.sha256(questions.encode()).hexdigest()[:16]}

    def prompt(self, row: int) -> Prompt:
        """What was asked, with the picture that it is about where one was kept."""
        return self.a.prompts[row]

    def rewards(self) -> list[str]:
        """Rewards that have values of rows on both sides."""
        return [name for name in self.a.scores if name in self.b.scores]


def open_pairs(run: Path, other: str) -> OutputPairs:
    """A is `other`, a run directory or the word `start`; B is `run`.

    Raises:
        DataError: one holds no evaluation, they did not ask the same, make different things, kept no outputs, or made
            the same.
    """
    if other == START:
        folders = (run / "evaluation" / "before", evaluation_folders(run)[0])
        names = (f"start of {run.resolve().name}", run.resolve().name)
    else:
        _, folders = compare_runs(Path(other), run)
        names = (Path(other).resolve().name, run.resolve().name)
    a, b = (Evaluation.load(folder, sounds=False) for folder in folders)
    if a.modality != b.modality or [p.question for p in a.prompts] != [p.question for p in b.prompts]:
        raise DataError(f"{folders[0]} and {folders[1]}: not outputs of one kind for the same prompts.")
    pairs = OutputPairs(names, folders, a, b)
    if not pairs.count:
        raise DataError(f"{folders[0]} and {folders[1]}: no outputs of the same prompts were kept in both.")
    if len(pairs.same) == pairs.count:
        raise DataError(f"{folders[0]} and {folders[1]}: all {pairs.count} pairs are the same on both sides.")
    return pairs


def write_preferences(pairs: OutputPairs, votes: Sequence[Vote], folder: Path) -> int:
    """Write a folder that `data: {name: preferences, path: FOLDER/rows.jsonl}` reads; returns how many rows it has.

    A row per pair that has votes: prompt, chosen and rejected (a text, or a file beside the rows), `label` 1, or 0.5
    where as many votes are for either, `votes`, and `share`, that of the chosen. What the prompt is about is the file
    in `image`.

    Raises:
        DataError: there are no votes.
    """
    by_pair: dict[int, list[float]] = {}
    for vote in votes:
        if vote.pair < pairs.count:
            by_pair.setdefault(vote.pair, []).append(WORTH[vote.choice])
    if not by_pair:
        raise DataError("there are no votes to export yet.")
    with write_folder_beside(folder) as beside:
        rows = [_row(pairs, pair, by_pair[pair], beside) for pair in sorted(by_pair)]
        lines = [json.dumps(row, ensure_ascii=False, default=repr) for row in rows]
        (beside / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows)


def _row(pairs: OutputPairs, pair: int, worth: list[float], folder: Path) -> dict[str, Any]:
    share = sum(worth) / len(worth)
    sides = [_output(side, pair, name, folder) for side, name in ((pairs.a, "a"), (pairs.b, "b"))]
    rejected, chosen = sides if share >= 0.5 else sides[::-1]
    prompt = pairs.prompt(pair)
    row: dict[str, Any] = {"prompt": list(prompt.messages) or prompt.text, "chosen": chosen, "rejected": rejected}
    if pair in pairs.a.prompt_pictures:
        (folder / "asked").mkdir(exist_ok=True)
        row["image"] = f"asked/{pair:04d}.png"
        write_image(pairs.a.prompt_pictures[pair], folder / row["image"])
    facts = {"label": 0.5 if share == 0.5 else 1.0, "votes": len(worth), "share": max(share, 1 - share)}
    return {**{key: value for key, value in prompt.meta.items() if key not in row and key not in facts}, **row, **facts}


def _output(evaluation: Evaluation, row: int, name: str, folder: Path) -> str:
    if evaluation.modality == "text":
        return str(evaluation.outputs[row])
    file = evaluation.files[row]
    (folder / name).mkdir(exist_ok=True)
    shutil.copyfile(file, folder / name / file.name)
    return f"{name}/{file.name}"
