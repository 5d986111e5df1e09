"""The prompt rewriter: its second stage starts from what the first saved, and its album shows what both saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmalign.core.config import load
from mmalign.core.errors import ConfigError
from mmalign.media import image
from pipelines._stages import of_stage
from pipelines.prompt_rewriter import ALIGN, STAGES, main, started_from

SMALL = [
    *(
        "trainer.steps=1",
        "trainer.prompts_per_step=2",
        "trainer.preview_every=0",
        "trainer.evaluate_every=0",
        "adapter.device=cpu",
    ),
    *("evaluation.count=2", "evaluation.judges={}", "policy.max_new_tokens=8"),
]
SHOWN = "adapter: {name: sd3, model: assets/scenes_sd3, max_sequence_length: 1, text_encoder_3: false, train: frozen}"
THROUGH = (
    f"rewards.align={{name: through, generator: {{{SHOWN}, policy: {{name: flow, noise_level: 0, eval_steps: 1}}}}, "
    "inner: {name: sharpness}}"
)


def test_any_name_of_a_folder_is_read_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "set #1, a: b"
    assert load(ALIGN, started_from(place, ALIGN, ())).adapter["model"] == str(place)


def test_the_album_shows_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    sheet = image.contact_sheet

    def noted(pictures: Any, captions: Sequence[str], *more: Any, **options: Any) -> Any:
        told.extend(captions)
        return sheet(pictures, captions, *more, **options)

    monkeypatch.setattr(image, "contact_sheet", noted)
    far = ["trainer.lr=1", "trainer.ema=0.999999", "objective.group_size=4", THROUGH]  # the average stays at the start
    changes = [*SMALL, *(f"align.{change}" for change in far)]
    main(changes=changes, out=tmp_path)
    words = {stage: [line.split(": ", 1)[1] for line in told if line.startswith(stage)] for stage in ("imit", "align")}
    assert words["align"] == words["imit"] and len(words["align"]) == 8 and (tmp_path / "rewrites.png").is_file()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    main(changes=changes, out=tmp_path, resume=True)  # finished: read, not run again
    assert made and made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    with pytest.raises(ConfigError, match=r"imitate: holds a run with another trainer.lr "):
        main(changes=[*changes, "imitate.trainer.lr=1"], out=tmp_path, resume=True)


def test_a_change_is_of_both_stages_or_of_one() -> None:
    changes = ["data.path=x", "imitate.objective.target=y", "align.trainer.lr=1"]
    assert of_stage(changes, "imitate", STAGES) == ["data.path=x", "objective.target=y"]
    assert of_stage(changes, "align", STAGES) == ["data.path=x", "trainer.lr=1"]
