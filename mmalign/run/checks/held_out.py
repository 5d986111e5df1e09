"""Is what is measured on really held out? Said, not refused: who names the files may mean it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmalign.core.config import RunFile
from mmalign.core.protocols import DataSource
from mmalign.data.held_out import shared_with_training
from mmalign.run.checks import check_training

log = logging.getLogger("mmalign")


@check_training
def trained_questions(file: RunFile, source: DataSource, questions: Sequence[Any]) -> None:
    """Of `evaluation.prompts`; sources say it of their own `held_out_path`."""
    if not file.evaluation.prompts:
        return
    shared, total = shared_with_training(source, questions)
    if shared:
        log.warning(
            "evaluation.prompts: %d of the %d prompts of %s are trained on; they are not held out.",
            *(shared, total, file.evaluation.prompts),
        )


@check_training
def ready_questions(file: RunFile) -> None:
    """A ready file's own held-out prompts, beside somebody's own data."""
    path, aside = (str(file.data.get(key) or "") for key in ("path", "held_out_path"))
    if aside.startswith("assets/") and path and not path.startswith("assets/"):
        log.warning(
            "data.held_out_path is still %s, of the ready run file, while data.path is %s; name prompts of your own "
            "there, or leave it out and set data.held_out.",
            *(aside, path),
        )
