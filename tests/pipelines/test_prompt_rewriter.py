"""The prompt rewriter: its second stage starts from what the first saved, and its album shows what both saved."""

from pathlib import Path

import pytest

from mmalign.core.config import dump, load
from pipelines import prompt_rewriter
from pipelines.prompt_rewriter import ALIGN, IMITATE, main, started_from

SMALL = [
    *(
        "trainer.steps=1",
        "trainer.batch=2",
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
    assert load(ALIGN, started_from(place, ALIGN)).adapter["model"] == str(place)


def test_the_album_shows_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    sheet = prompt_rewriter.contact_sheet
    monkeypatch.setattr(prompt_rewriter, "contact_sheet", lambda *a, **k: told.extend(a[1]) or sheet(*a, **k))
    (tmp_path / "imitate.yaml").write_text(dump(load(IMITATE, SMALL)))
    far = ["trainer.lr=1", "trainer.ema=0.999999", "objective.group_size=4", THROUGH]  # the average stays at the start
    main(tmp_path / "imitate.yaml", ALIGN, [*SMALL, *far], tmp_path)
    words = {stage: [line.split(": ", 1)[1] for line in told if line.startswith(stage)] for stage in ("imit", "align")}
    assert words["align"] == words["imit"] and len(words["align"]) == 8 and (tmp_path / "rewrites.png").is_file()
