"""What `pipelines.music` makes of what it is pointed at are run files that the real checks accept."""

from pathlib import Path

import pytest

from mmalign.core.config import load
from mmalign.core.errors import ConfigError, DataError
from mmalign.run.build import build
from pipelines.music import CONFIG, FORMS, changes_for, main

QUICKSTART = CONFIG.parents[1] / "quickstart" / "audio.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "exemplars").mkdir()
    (tmp_path / "prompts.txt").write_text("slow piano\nfast harp\n")
    (tmp_path / "words.txt").write_text("calm\nbright\n")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "a.wav", "rejected": "b.wav"}\n')
    return tmp_path


@pytest.mark.parametrize("objective", list(FORMS))
def test_exemplars_make_a_run_that_every_check_accepts(folder: Path, objective: str) -> None:
    changes = changes_for(CONFIG, str(folder / "exemplars"), objective)  # type: ignore[arg-type]
    run = load(CONFIG, [*changes, f"data.path={folder / 'prompts.txt'}", "adapter.lora={rank: 4, alpha: 4}"])
    assert run.objective["name"] == objective and build(run)
    assert run.rewards["style"]["reference"] == str(folder / "exemplars")
    assert objective != "grpo" or run.policy["eta"] > 0


def test_the_embedded_models_of_sound_follow_exemplars_by_grpo(tmp_path: Path) -> None:
    small = ["trainer.steps=1", "trainer.batch=2", "evaluation.count=2", "objective.group_size=2"]
    run = main(QUICKSTART, "assets/exemplars/chimes", "grpo", "", [*small, "trainer.preview_every=0"], tmp_path / "run")
    assert run.rows[0].name == "target" and (tmp_path / "run" / "report.html").is_file()


def test_a_run_file_needs_something_to_point_elsewhere(folder: Path) -> None:
    with pytest.raises(ConfigError, match="none of its rewards has a `reference`"):
        changes_for(QUICKSTART.with_name("image.yaml"), str(folder / "exemplars"))


def test_preferences_make_dpo_of_it(folder: Path) -> None:
    run = load(CONFIG, [*changes_for(CONFIG, str(folder / "rows.jsonl"))])
    assert run.objective["name"] == "dpo" and run.data["name"] == "preferences" and not run.rewards
    with pytest.raises(ConfigError, match="--objective r0: preferences are learned by DPO"):
        changes_for(CONFIG, str(folder / "rows.jsonl"), "r0")


def test_descriptions_ask_for_pairs(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--pairs: descriptions are compared with sounds across a CLAP"):
        changes_for(CONFIG, str(folder / "words.txt"))
    assert changes_for(CONFIG, str(folder / "words.txt"), pairs="none")[1] == "rewards.style.pairs=none"
    with pytest.raises(DataError, match="no such file or folder"):
        changes_for(CONFIG, str(folder / "nothing"))
