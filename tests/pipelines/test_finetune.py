"""`pipelines.finetune` finds the run file that goes with a folder, and the run passes the real checks."""

from pathlib import Path

import pytest
import torch

from mmalign.core.config import load
from mmalign.core.errors import ConfigError, DataError
from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from mmalign.run.build import build
from pipelines.finetune import CONFIGS, READY, changes_for, config_for, main, read, resumed


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_folder_of_ones_own_makes_a_run_that_every_check_accepts(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "my things, [new]"
    if kind == "image":
        write_image(torch.rand(3, 40, 50), folder / "a.png")
    else:
        write_audio(torch.rand(1, 4000), 8000, folder / "a.wav")
    (folder / "a.txt").write_text("one of mine")
    config = config_for(folder)
    assert config == READY[kind]  # type: ignore[index]
    run = load(config, changes_for(str(folder), "a photo of a dog: mine"))
    assert build(run) and run.data["path"] == str(folder)
    assert run.objective["prior_prompts"] == ["a photo of a dog: mine"]


def test_what_is_no_folder_of_one_kind_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="holds neither pictures nor sounds; name a folder of one kind"):
        config_for(tmp_path)
    with pytest.raises(ConfigError, match=r"--resume x: goes on as its run\.yaml says; leave my_photos away"):
        resumed(read(["my_photos", "--resume", "x"]))
    with pytest.raises(SystemExit):
        read(["one", "two"])
    assert "one folder, not 2: one, two" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["scenes", "tunes"])
def test_the_embedded_generators_are_fine_tuned(tmp_path: Path, kind: str) -> None:
    small = ["trainer.steps=2", "trainer.prompts_per_step=4", "evaluation.count=2", "trainer.preview_every=0"]
    made = main("", CONFIGS / kind / "finetune.yaml", "", [*small, "objective.draws=1"], tmp_path / "run")
    assert made.rows and (tmp_path / "run" / "report.html").is_file()
