"""Any reward on a bench: files of the benchmarks' shapes, texts and pictures, and what a rule must come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mmalign.cli.main import application
from mmalign.core.errors import CapabilityError, DataError
from mmalign.media.image import to_pil
from mmalign.rewards import load_reward
from mmalign.run.judge import judge_reward, measured, read_comparisons, reward_of
from pipelines.bench import swapped as in_each_others_place

RELATIONS = ("left of", "right of", "above", "below")
PAIR = {"prompt": "why?", "chosen": "because of a b c", "rejected": "no"}
SHAPES: dict[str, dict[str, Any]] = {
    "rewardbench2": {
        "id": "12", **PAIR, "chosen": ["yes"], "rejected": ["no", "a", "b"], "num_correct": 1, "num_incorrect": 3,
        "total_completions": 4, "models": ["m", "n"], "subset": "Math", "additional_metadata": {"category": None},
    },
    "rag": {
        "id": 3, "prompt": "References: [1] …", "question": "why?", "chosen": "yes [1]", "chosen_model": "m",
        "reject": "no", "reject_model": "n", "subset": "citation",
    },
    "mm_rlhf": {
        "id": "7", **PAIR, "image": "long/one.png", "chosen_reason": "good", "rejected_reason": "bad",
    },
    "multimodal": {
        "ID": "x1", "Text": "why?", "Image": "long/one.png", "Output1": "no", "Output2": "yes", "Better": "Output2",
        "Category": "vqa",
    },
    "vl": {
        "id": "v", "query": "why?", "response": ["no", "yes"], "image": "long/one.png", "human_ranking": [1, 0],
        "models": ["m", "n"], "judge": [""], "rationale": [""], "query_source": "hallucination",
    },
}  # fmt: skip


def rows_file(folder: Path, *rows: dict[str, Any], suffix: str = ".jsonl") -> str:
    (folder / "long").mkdir(exist_ok=True)
    to_pil(torch.rand(3, 8, 8)).save(folder / "long" / "one.png")
    path = folder / f"rows{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines if suffix == ".jsonl" else json.dumps(list(rows)))
    return str(path)


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_of_each_benchmark_is_a_comparison(name: str, tmp_path: Path) -> None:
    (row,) = read_comparisons(rows_file(tmp_path, SHAPES[name]))
    assert "why?" in row.text and row.meta["chosen"][0] in ("yes", "yes [1]", PAIR["chosen"])
    assert row.meta["rejected"][0] == "no" and "question" not in row.meta
    subsets = {"rewardbench2": "Math", "rag": "citation", "mm_rlhf": "long", "multimodal": "vqa", "vl": "hallucination"}
    assert row.meta["subset"] == subsets[name]
    assert list(row.media) == ([] if name in ("rewardbench2", "rag") else ["image"])
    assert all(picture.shape == (3, 8, 8) for picture in row.media.values())
    assert name != "mm_rlhf" or row.meta["sample"] == "7"


RANKING: dict[str, Any] = {
    "id": "r1", "principle": "Short answers are better.", "prompt": "why?", "subset": "style",
    "responses": {"m1": "a b c", "m2": "a", "m3": "a b", "m4": "b"}, "scores": {"m1": 1, "m2": 5, "m3": 3.0, "m4": 5},
}  # fmt: skip


def test_a_ranking_by_a_principle_is_as_many_comparisons_as_it_has_levels(tmp_path: Path) -> None:
    """RABench: by hand, and ACC+ is whether the whole ranking is right."""
    lists = {"responses": list(RANKING["responses"].values()), "scores": json.dumps([1, 5, 3, 5]), "id": "r2"}
    rows = read_comparisons(rows_file(tmp_path, RANKING, RANKING | lists))
    first, second = rows[:2]
    assert first.text == "Short answers are better.\n\nwhy?" and first.meta["principle"] == RANKING["principle"]
    assert (first.meta["chosen"], first.meta["rejected"]) == (["a", "b"], ["a b c", "a b"])
    assert (second.meta["chosen"], second.meta["rejected"]) == (["a b"], ["a b c"])
    assert [row.meta["sample"] for row in rows] == ["r1", "r1", "r2", "r2"]
    assert [row.meta["chosen"] for row in rows[2:]] == [row.meta["chosen"] for row in rows[:2]]
    short = judge_reward("length", load_reward("length", low=0, high=1, fall=9), rows).means()
    long = judge_reward("length", load_reward("length", low=9, rise=9), rows).means()
    assert (short["accuracy"], short["acc_plus"]) == (1.0, 1.0) and (long["accuracy"], long["acc_plus"]) == (0.0, 0.0)
    with pytest.raises(DataError, match=r"rows.jsonl:1: 'scores' is .* expected a number for each of 4 responses"):
        read_comparisons(rows_file(tmp_path, RANKING | {"scores": {"m1": 1, "m2": 2}}))
    with pytest.raises(DataError, match=r"'responses' is 'x'; expected .* as JSON"):
        read_comparisons(rows_file(tmp_path, RANKING | {"responses": "x"}))


def test_files_that_are_no_benchmark_are_refused_and_columns_can_be_named(tmp_path: Path) -> None:
    file = rows_file(tmp_path, {"ask": "why?", "chosen": "yes", "rejected": "no"})
    with pytest.raises(DataError, match="has the columns ask, chosen, rejected, of no benchmark that is known"):
        read_comparisons(file)
    assert read_comparisons(file, {"prompt": "ask"})[0].text == "why?"
    file = rows_file(tmp_path, SHAPES["vl"] | {"human_ranking": [1, 1]}, SHAPES["vl"] | {"response": ["one"]})
    with pytest.raises(DataError, match=r"(?s)rows.jsonl:1: 'human_ranking' is \[1, 1\].*rows.jsonl:2"):
        read_comparisons(file)


def swapped(relation: str) -> dict[str, Any]:
    right, turned = (f"a {a} circle {relation} a {b} star" for a, b in (("red", "blue"), ("blue", "red")))
    return {"prompt": right, "chosen": right, "rejected": turned, "references": right, "subset": relation}


def test_bmas_is_blind_to_order_and_to_nothing_else(tmp_path: Path) -> None:
    """Documented, and exact: colours that change places cost nothing, a colour that is another one does."""
    bmas = load_reward("bmas", checkpoint="assets/scenes_clip")
    found = judge_reward("bmas", bmas, read_comparisons(rows_file(tmp_path, *map(swapped, RELATIONS))))
    assert found.means()["accuracy"] == found.means()["macro"] == 0.5
    turned = judge_reward("bmas", bmas, list(in_each_others_place())).means()["accuracy"]
    assert turned == 0.5  # of 70 captions: with the words in their own order rounding decided between equals
    other = [swapped(relation) | {"rejected": f"a red circle {relation} a green star"} for relation in RELATIONS]
    assert judge_reward("bmas", bmas, read_comparisons(rows_file(tmp_path, *other))).means()["accuracy"] == 1.0


def test_pictures_are_judged_and_a_near_prompt_is_wrong_for_them(tmp_path: Path) -> None:
    for name, shade in (("dark", 0.1), ("light", 0.9)):
        to_pil(torch.full((3, 8, 8), shade)).save(tmp_path / f"{name}.png")
    file = rows_file(tmp_path, {"prompt": "x", "chosen": "light.png", "rejected": ["dark.png"]})
    brightness = load_reward("tests.run.test_judge:light", {"tests.run.test_judge"})
    assert judge_reward("light", brightness, read_comparisons(file)).means()["accuracy"] == 1.0
    with pytest.raises(CapabilityError, match="judges text; these outputs are image"):
        judge_reward("length", load_reward("length", low=1), read_comparisons(file))


def test_the_command_measures_a_reward_and_a_run_files_mix(tmp_path: Path) -> None:
    file = rows_file(tmp_path, PAIR, {**PAIR, "chosen": "no", "rejected": "because"})
    words = ["judge", file, "--reward", "length", "--set", "low=3", "--set", "rise=3", "--json"]
    result = CliRunner().invoke(application(), words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["accuracy"]["n"] == 2 and found["accuracy"]["low"] <= found["accuracy"]["value"]
    mix = reward_of("configs/scenes/hacked_clip.yaml", {})
    assert mix.modalities == {"text"}
    captioned = {"prompt": "Describe.", "image": "long/one.png", "chosen": "a red circle", "rejected": "two blue stars"}
    assert measured(judge_reward("mix", mix, read_comparisons(rows_file(tmp_path, captioned))))["accuracy"]["n"] == 1


from mmalign.rewards import rule  # noqa: E402


@rule(modalities={"image"}, range=(0.0, 1.0))
def light(output: torch.Tensor) -> float:
    """How bright a picture is."""
    return float(output.mean())
