"""The sentences of docs/results.md say the figures of the committed files, and no other figure."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.figures import MEASURED, ROOT, fewer_bits_rows, measured, page_text, sentences

#: Numbers that are names or conditions and nobody measured: methods, options, the table of a paper.
NOT_MEASURED = r"R0|R²|Stable ?Audio ?3|lowest 95 % bound|DRAGON's table 5"


def rest() -> str:
    """What the page says besides the passages of `sentences`, code and names."""
    text = page_text()
    for passage in sentences():
        text = text.replace(passage, "")
    return re.sub(NOT_MEASURED, "", re.sub(r"`[^`]*`", "", text))


@pytest.mark.parametrize("number", range(len(sentences())))
def test_a_passage_says_what_its_file_says(number: int) -> None:
    assert sentences()[number] in page_text()


def test_no_other_sentence_says_a_figure() -> None:
    assert re.findall(r".{0,40}\d.{0,20}", rest()) == []


def test_the_table_of_quantised_bases_is_its_file() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in fewer_bits_rows() if row not in page] == []


@pytest.mark.parametrize("name", MEASURED)
def test_a_file_of_figures_names_its_command_and_its_commits(name: str) -> None:
    content = measured(name)
    source = content.get("environment", content)
    commits = [source["commit"]] if "commit" in source else [run["commit"] for run in content["seeds"]]
    assert source["command"] and all(re.fullmatch(r"[0-9a-f]{7,40}\+?", commit) for commit in commits)


@pytest.mark.parametrize("name", MEASURED)
def test_the_page_links_the_files_that_its_sentences_take_figures_from(name: str) -> None:
    assert f"](../{MEASURED[name]})" in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_what_sentences_say_without_figures() -> None:
    def wins(target: str) -> list[float]:
        result = json.loads((ROOT / f"assets/results/music_rewards/{target}.json").read_text(encoding="utf-8"))
        row = next(r for r in result["mean"] if r["role"] == "trained")
        return [float(share) for share in row["win_rate_by_seed"]]

    better = [t for t in ("clap", "clap_dpo", "clap_grpo", "clap_r0") if all(share > 0.5 for share in wins(t))]
    assert better == ["clap_grpo"]  # "only GRPO makes more prompts better than worse with every seed"
    assert sum(share < 0.5 for share in wins("fad_chimes_r0")) == 1  # "R0 on FAD loses with one of three seeds"
    results = [json.loads(p.read_text()) for p in (ROOT / "assets/results/music_rewards").glob("*.json")]
    minutes = [run["seconds"] / 60 for result in results for run in result["seeds"]]
    assert min(minutes) >= 2 and max(minutes) <= 11  # "two to eleven minutes a run"
