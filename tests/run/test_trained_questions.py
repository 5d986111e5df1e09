"""What is measured on and also trained on is said: by the table's title, at the start, and in the chart."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmalign.core.types import Prompt
from mmalign.data.held_out import shared_with_training
from mmalign.data.sources.prompts import Prompts
from mmalign.run.checks.held_out import ready_questions, trained_questions
from mmalign.run.evaluate import _prompts_in_words
from tests.typecheck import unchecked


def test_prompts_that_are_trained_on_are_counted_and_not_called_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.txt").write_text("a cat\na dog\na cow\n")
    source = Prompts(str(tmp_path / "own.txt"))
    questions = [Prompt("a dog"), Prompt("a dog"), Prompt("a hen")]
    assert shared_with_training(source, questions) == (1, 2)
    file = SimpleNamespace(evaluation=SimpleNamespace(prompts="asked.txt"))
    parts: Any = SimpleNamespace(file=file, source=source)  # what is read of a run's parts
    with unchecked():
        assert _prompts_in_words(parts, questions) == "Prompts of asked.txt (1 of 2 are trained on)"
        assert _prompts_in_words(parts, questions[2:]) == "Prompts of asked.txt"
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        trained_questions(file, source, questions)
    assert "1 of the 2 prompts of asked.txt are trained on; they are not held out" in caplog.text
    file.evaluation.prompts = ""
    with unchecked():
        assert _prompts_in_words(parts, questions) == "Held-out prompts"


@pytest.mark.parametrize(("path", "said"), [("own.txt", True), ("assets/prompts/a.txt", False)])
def test_the_held_out_prompts_of_a_ready_file_beside_own_data_are_said(
    path: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    file = SimpleNamespace(data={"path": path, "held_out_path": "assets/prompts/b.txt"})
    ready_questions(file)
    assert ("data.held_out_path is still assets/prompts/b.txt, of the ready run file" in caplog.text) == said
