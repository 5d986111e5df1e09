"""Texts longer than a model reads: said once, counted at every call, known before training from the data alone."""

import warnings
from pathlib import Path

import pytest
import torch

from mmalign.core import cuts
from mmalign.core.config import load
from mmalign.core.cuts import TextLimit, counting_cuts, note_cut
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards import Guarded, load_reward
from mmalign.rewards.models.clip_towers import Source, load_towers
from mmalign.run.build import build
from mmalign.run.long_texts import long_texts

LONG = "a red circle " * 5  # 15 words and two ends; the toy towers read 12 and 19


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_SAID", set())


def judged(texts: list[str]) -> Rollout:
    return Rollout([Prompt(text) for text in texts], torch.rand(len(texts), 3, 32, 32), torch.arange(len(texts)))


def test_a_prompt_that_is_cut_is_said_once_and_counted_each_time(tiny_clip: Path) -> None:
    reward = Guarded("clip", load_reward("clip", checkpoint=str(tiny_clip)))
    with pytest.warns(UserWarning, match=rf"CLIP {tiny_clip}: the last 5 of 17 tokens of 'a red circle .*' are cut"):
        scores = reward(judged([LONG, "a star", LONG + "star"]))
    assert scores.valid.all() and reward.metrics()["texts_cut"] == 2
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are cut")
        reward(judged([LONG, "a star", LONG]))
        assert reward.metrics()["texts_cut"] == 1  # different texts
        reward(judged(["a star"]))
    assert "texts_cut" not in reward.metrics()


def test_what_the_tokenizer_alone_counts_is_what_the_tower_leaves_out(tiny_clip: Path) -> None:
    reward = load_reward("clip", checkpoint=str(tiny_clip))
    limit, towers = reward.limit(), load_towers(Source(str(tiny_clip)))
    assert limit.room == 12
    whole, past = "a red circle " * 3 + "a", "a red circle " * 3 + "a star"
    assert limit.count(whole) == 12 and limit.count(past) == 13
    longer = whole + " blue square"
    with pytest.warns(UserWarning, match="are cut"):
        same = towers.texts([longer, past])
    assert torch.equal(*same) and not torch.equal(towers.texts([whole]), towers.texts(["a red circle " * 3]))


@pytest.mark.parametrize(
    "name, more, modality",
    [("clip", {}, "image"), ("clip_r_precision", {}, "image"), ("ref_clip_score", {}, "text"), ("clap", {}, "audio")],
)
def test_every_reward_of_known_texts_tells_them(name: str, more: dict, modality: str, request) -> None:
    folder = request.getfixturevalue("tiny_clap" if name == "clap" else "tiny_clip")
    reward = load_reward(name, checkpoint=str(folder), **more)
    columns = {"references": [LONG * 2, "a"], "negatives": ["a star", LONG * 3]}
    texts = reward.known_texts([Prompt(LONG * 2, meta=columns), Prompt("a star", meta=columns)], modality)
    assert "tokens of a text, and " in reward.limit().summary(texts)
    if name in ("clip", "clap"):  # captions are not known before they are made
        assert reward.known_texts([Prompt(LONG)], "text") == []


def test_a_run_says_which_of_its_prompts_are_read_in_part(tmp_path: Path) -> None:
    lines = ["a red circle", " ".join(["a red circle and"] * 20), "two blue squares"]
    (tmp_path / "p.txt").write_text("\n".join(lines))
    run = load("configs/quickstart/image.yaml", [f"data.path={tmp_path}/p.txt", "data.held_out_path=''"])
    parts = build(run)
    sentences = long_texts(parts)
    assert [sentence.partition(":")[0] for sentence in sentences] == ["rewards.clip", "evaluation.judges.judge_clip"]
    assert "and 1 of 3 different prompts are longer: their ends are not seen. The longest has" in sentences[0]
    (tmp_path / "p.txt").write_text("\n".join(lines[::2]))
    assert long_texts(build(run)) == []


def test_counts_are_of_the_work_that_asks(tmp_path: Path) -> None:
    limit = TextLimit("reader", lambda text: len(text.split()), 2)
    with counting_cuts() as outer, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit.note("a b c")
        with counting_cuts() as inner:
            limit.note("a b")
            limit.note("x y z")
            note_cut("other", "x y z", 3, 2)
    assert (len(outer), len(inner)) == (3, 2)
    assert limit.summary(["a", "b c"]) is None
