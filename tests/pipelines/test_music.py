"""What `pipelines.music` makes of what it is pointed at are run files that the real checks accept."""

from pathlib import Path

import pytest

from mmalign.core.config import RunFile, load
from mmalign.core.errors import ConfigError, DataError
from mmalign.run.build import build
from pipelines.music import CONFIG, FORMS, Objective, changes_for, main

QUICKSTART = CONFIG.parents[1] / "quickstart" / "audio.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "exemplars").mkdir()
    (tmp_path / "prompts.txt").write_text("slow piano\nfast harp\n")
    (tmp_path / "words.txt").write_text("calm\nbright\n")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "a.wav", "rejected": "b.wav"}\n')
    return tmp_path


@pytest.fixture
def run() -> RunFile:
    return load(CONFIG)


@pytest.mark.parametrize("config", [CONFIG, QUICKSTART])
@pytest.mark.parametrize("objective", list(FORMS))
def test_exemplars_make_a_run_that_every_check_accepts(folder: Path, config: Path, objective: Objective) -> None:
    changes = changes_for(load(config), str(folder / "exemplars"), objective)
    run = load(config, [*changes, f"data={{name: prompts, path: {folder / 'prompts.txt'}}}"])
    assert run.objective["name"] == objective and build(run)
    assert [reward["reference"] for reward in run.rewards.values()] == [str(folder / "exemplars")]
    assert objective != "grpo" or run.policy.get("eta", 0) + run.policy.get("noise_level", 0) > 0


def test_what_the_run_file_says_stays(folder: Path) -> None:
    place = str(folder / "exemplars")
    noisy = load(QUICKSTART, ["policy.noise_level=0.3", "objective={name: grpo, group_size: 4}"])
    assert changes_for(noisy, place, "grpo") == [f"rewards.target.reference={place}"]
    assert "objective={name: dragon, builder: greedy_swap}" in changes_for(noisy, place, "dragon")
    assert any("rows: 8" in change for change in changes_for(load(CONFIG), place, "r0"))


def test_the_embedded_models_of_sound_follow_exemplars_by_grpo(tmp_path: Path) -> None:
    small = ["trainer.steps=1", "trainer.prompts_per_step=2", "evaluation.count=2", "objective.group_size=2"]
    run = main(QUICKSTART, "assets/exemplars/chimes", "grpo", "", [*small, "trainer.preview_every=0"], tmp_path / "run")
    assert run.rows[0].name == "target" and (tmp_path / "run" / "report.html").is_file()


def test_preferences_make_dpo_of_it(folder: Path, run: RunFile) -> None:
    made = load(CONFIG, [*changes_for(run, str(folder / "rows.jsonl"))])
    assert made.objective["name"] == "dpo" and not made.rewards
    assert made.data["name"] == "preferences" and made.data["held_out"] == 0.1
    with pytest.raises(ConfigError, match="--objective r0: preferences are learned by DPO"):
        changes_for(run, str(folder / "rows.jsonl"), "r0")


@pytest.mark.parametrize("name", ["set #1", "rock, jazz", "a: b"])
def test_any_name_of_a_folder_is_read_as_it_is(folder: Path, run: RunFile, name: str) -> None:
    place = (folder / "exemplars").rename(folder / name)
    rows = (folder / "rows.jsonl").rename(place / "p.jsonl")
    assert load(CONFIG, changes_for(run, str(rows))).data["path"] == str(rows)
    made = load(CONFIG, changes_for(run, str(place), pairs=str(rows))).rewards["style"]
    assert (made["reference"], made["pairs"]) == (str(place), str(rows))


def test_options_that_few_steps_keep_are_what_they_were(folder: Path) -> None:
    unguided = load(CONFIG, ["policy.eval_guidance_scale=null", "policy.guidance_scale=1.0e-5"])
    policy = load(CONFIG, changes_for(unguided, str(folder / "exemplars"), "r0")).policy
    assert (policy["eval_guidance_scale"], policy["guidance_scale"]) == (None, 1e-5)


def test_descriptions_ask_for_pairs(folder: Path, run: RunFile) -> None:
    with pytest.raises(ConfigError, match="--pairs: descriptions are compared with sounds across a CLAP"):
        changes_for(run, str(folder / "words.txt"))
    assert changes_for(run, str(folder / "words.txt"), pairs="none")[1] == "rewards.style.pairs=none"
    with pytest.raises(DataError, match="no such file or folder"):
        changes_for(run, str(folder / "nothing"))


def test_one_reward_is_pointed_and_keeps_its_ears(folder: Path) -> None:
    place = str(folder / "exemplars")
    with pytest.raises(ConfigError, match="the run file has none with one; give it a single `fad`"):
        changes_for(load(QUICKSTART.with_name("image.yaml")), place)
    with pytest.raises(ConfigError, match="the run file has target, second with one"):
        changes_for(load(QUICKSTART, ["rewards.second={name: kad, reference: other}"]), place)
    with pytest.raises(ConfigError, match=r"rewards\.target\.encoder: so far the statistics in .*said what listens"):
        changes_for(load(QUICKSTART, ["rewards.target={name: fad, reference: a.safetensors}"]), place)
