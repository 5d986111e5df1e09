"""Annotators by hand: which columns and rows come of a row, and which are skipped, with real readers and rewards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmalign
from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.annotators.convex_hull import hull_corners
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout
from mmalign.miniworld.colloquial import same_meaning
from mmalign.miniworld.language import parse
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.rewards.doubles import text_encoder

CLIP = "assets/scenes_clip"
PAIR: dict[str, Any] = {"prompt": "two", "chosen": "a long text of many words", "rejected": "short", "id": 7}


def annotated(name: str, rows: Sequence[dict[str, Any]], **options: Any) -> list[Any]:
    made = annotators.build({"name": name, **options}, name)([Row.of(row) for row in rows])
    return [str(result) if isinstance(result, Skipped) else result for result in made]


def words(low: float, high: float = 100.0) -> dict[str, Any]:
    """A reward of words: 0 inside, falling below."""
    return {"name": "length", "low": low, "high": high}


def drawing(lm_folder: Callable[..., Path]) -> dict[str, Any]:
    """A tiny language model that draws a few words."""
    adapter = {"name": "causal_lm", "model": str(lm_folder("llama"))}
    return {"adapter": adapter, "policy": {"name": "tokens", "max_new_tokens": 4}}


def of_length(text: str, low: float) -> float:
    return float(mmalign.load_reward("length", low=low, high=100.0)(Rollout.of(["two"], [text])).value[0])


def test_strength_is_the_vote_and_turns_the_pairs_that_it_must() -> None:
    turned = PAIR | {"chosen": "short", "rejected": PAIR["chosen"]}
    rewards = [words(4.0), words(6.0)]
    gaps = [of_length(PAIR["chosen"], low) - of_length("short", low) for low in (4.0, 6.0)]
    mean, std = sum(gaps) / 2, abs(gaps[0] - gaps[1]) / 2
    assert mean > 0
    ((plain,), (flipped,)) = annotated("strength", [PAIR, turned], rewards=rewards, margins=True)
    assert plain["strength"] == pytest.approx(mean) and plain["strength_std"] == pytest.approx(std, abs=1e-6)
    assert not plain["flipped"] and plain["margin"] == pytest.approx(mean) and plain["label"] == 1
    assert flipped["flipped"] and flipped["strength"] == pytest.approx(-mean)
    assert (flipped["chosen"], flipped["rejected"], flipped["id"]) == (PAIR["chosen"], "short", 7)
    assert flipped["gap"] == plain["gap"] == pytest.approx(mean)
    ((kept,), (soft,)) = annotated("strength", [turned, PAIR], rewards=rewards, flip=2 * mean, soft=2 * mean)
    assert not kept["flipped"] and kept["gap"] == pytest.approx(-mean)
    assert soft["label"] == kept["label"] == 0.8 and "margin" not in soft


def test_a_pair_that_a_reward_cannot_score_is_skipped() -> None:
    rows = [PAIR | {"rejected": ""}, PAIR]
    judged = annotated("strength", rows, rewards=[{"name": "exact_match"}])
    assert judged == ["a reward could not score both sides"] * 2  # no row has an answer


def test_agreement_is_kendalls_tau_and_labels_the_extremes() -> None:
    row = {"prompt": "two", "outputs": ["a", "a b", "a b c", "a b"], "id": 1}
    ((same,),) = annotated("agreement", [row], first=words(5.0), second=words(4.0))
    assert (same["chosen"], same["rejected"], same["agreement"], same["label"]) == ("a b c", "a", 1, 1)
    assert "outputs" not in same and same["id"] == 1
    against = {"name": "length", "low": 0.0, "high": 1.0, "fall": 9.0}  # shorter is better
    ((other,),) = annotated("agreement", [row], first=words(5.0), second=against)
    assert other["agreement"] == -1 and (other["chosen"], other["rejected"]) == ("a", "a b c")  # certain, turned round
    ((hard,),) = annotated("agreement", [row], first=words(5.0), second=against, hard=True)
    assert (hard["chosen"], hard["label"]) == ("a b c", 1)
    flat = annotated("agreement", [row, row | {"outputs": ["a", "a"]}], first=words(0.0), second=words(4.0))
    assert flat == ["the first reward ranks no output above another", "'outputs' holds fewer than two different texts"]


def test_goals_make_each_output_right_for_its_score() -> None:
    options = {"goals": ["low", "middle", "high"], "edges": [0.3, 0.7]}
    rows = [PAIR | {"chosen_score": 0.9, "rejected_score": 0.1}, PAIR | {"chosen_score": 0.1, "rejected_score": "0.5"}]
    rows += [PAIR | {"chosen_score": 0.8, "rejected_score": 0.75}, PAIR]
    both, turned, one, none = annotated("goal", rows, **options)
    assert [(r["prompt"], r["chosen"]) for r in both] == [("high two", PAIR["chosen"]), ("low two", "short")]
    assert [(r["prompt"], r["chosen"]) for r in turned] == [("middle two", "short"), ("low two", PAIR["chosen"])]
    assert len(one) == 1 and none == "no numbers in chosen_score and rejected_score"
    ((up, down),) = annotated("goal", [PAIR], goals=["few", "many"], edges=[0.5], reward=words(4.0))
    assert up["prompt"] == "many two" and down["prompt"] == "few two" and down["rejected"] == PAIR["chosen"]
    with pytest.raises(ConfigError) as faults:
        annotators.build({"name": "goal", "goals": ["a", "a"], "edges": [2.0, 1.0], "template": "{goal}"}, "goal")
    for fault in ("names one word twice", "edges: needs", "template: must name"):
        assert fault in str(faults.value)


def test_demonstrations_stand_against_draws(lm_folder: Callable[..., Path]) -> None:
    rows = [{"prompt": text, "target": "a star"} for text in ("two", "a red", "two blue")] + [{"prompt": "two"}]
    made = annotated("sampled", rows, generator=drawing(lm_folder))
    alone = annotated("sampled", rows[1:2], generator=drawing(lm_folder))
    assert made[1] == alone[0] and made[1][0]["chosen"] == "a star" and made[1][0]["rejected"] != "a star"
    assert made[3] == "'target' holds no text"
    assert annotated("sampled", rows[1:2], generator=drawing(lm_folder), seed=1) != alone
    several = annotated("sampled", rows, generator=drawing(lm_folder), draws=3)
    assert [len(row["outputs"]) for (row,) in several] == [3] * 4 and several[3][0]["prompt"] == "two"
    assert annotated("sampled", rows[:1], generator=drawing(lm_folder), draws=3) == several[:1]


def test_ranked_lists_become_pairs() -> None:
    row = {"prompt": "two", "ranked": ["a", "b", "c"]}
    (every,) = annotated("ranks", [row])
    assert [(r["chosen"], r["rejected"], r["gap"]) for r in every] == [("a", "b", 1), ("a", "c", 2), ("b", "c", 1)]
    (near, broken) = annotated("ranks", [row, {"prompt": "two", "ranked": "abc"}], pairs="next")
    assert [(r["chosen"], r["rejected"]) for r in near] == [("a", "b"), ("b", "c")]
    assert broken == "'ranked' holds no list of texts"


def test_contexts_turn_the_preference_round() -> None:
    row = PAIR | {"context": "long ones", "other_context": "short ones"}
    ((one, other),) = annotated("contexts", [row], template="{prompt} , {context}")
    assert (one["prompt"], one["chosen"]) == ("two , long ones", PAIR["chosen"])
    assert (other["prompt"], other["chosen"]) == ("two , short ones", "short")
    alone, none = annotated("contexts", [PAIR | {"context": "long"}, PAIR])
    assert len(alone) == 1 and none == "'context' holds no text"


def test_wordings_of_the_world_mean_the_same(lm_folder: Callable[..., Path]) -> None:
    rows = [{"prompt": "two discs", "request": "two circles"}, {"prompt": "x", "request": "no caption at all"}]
    ((worded,), strange) = annotated("paraphrase", rows, count=3)
    assert 1 <= len(worded["paraphrases"]) <= 3 and "two discs" not in worded["paraphrases"]
    assert strange == "'request' is no caption of the scenes"
    assert same_meaning(parse("two circles"), parse(rows[0]["request"]))
    ((drawn,),) = annotated("paraphrase", rows[:1], generator=drawing(lm_folder), count=2)
    assert len(drawn["paraphrases"]) == 2


def test_critical_tokens_are_those_of_the_credit(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    other = write_tiny_lm(tmp_path / "other", "llama", seed=5)
    row = {"prompt": "two", "chosen": "a star", "rejected": "a red circle"}
    ((read,),) = annotated("critical", [row], right=str(lm_folder("llama")), wrong=str(other), contrast=0.5)
    policies = [
        mmalign.load_reward("density_ratio", strong=str(f), weak=str(f)).better for f in (lm_folder("llama"), other)
    ]
    side = policies[0].read([Prompt("two")], ["a red circle"])
    with torch.no_grad():
        right, wrong = (each.loaded.step_logits(side)[0] for each in policies)
        s = (1.5 * right - 0.5 * wrong).softmax(-1).gather(-1, side.trajectory["tokens"][0, :, None])[:, 0]
    assert read["rejected_credit"] == pytest.approx(s.tolist(), abs=1e-5)
    assert read["critical"] == int(s.argmin()) and len(read["chosen_credit"]) == 3


def test_like_instructions_weigh_as_their_cosines_and_their_average_is_reward_fusion(tmp_path: Path) -> None:
    """The weights by hand, and `marginal` with them against the sum of the inner reward's own values."""
    texts = ["a red circle", "one red circle", "two blue stars", "a green square above a star"]
    row: dict[str, Any] = {"prompt": texts[0], "paraphrases": texts[1:3]}
    embedded = text_encoder(CLIP).texts(texts)
    cosines = (embedded @ embedded[0]).tolist()
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps({"prompt": texts[3]}) + "\n" + json.dumps({"prompt": texts[0]}) + "\n")
    ((every,),) = annotated("neighbours", [row], encoder=CLIP, pool=str(pool), least=0.0)
    kept = {text: near for text, near in zip(texts, cosines, strict=True) if near >= 0 or text == texts[0]}
    assert every["wordings"] == pytest.approx({t: near / sum(kept.values()) for t, near in kept.items()}, abs=1e-5)
    ((one,),) = annotated("neighbours", [row], encoder=CLIP, count=1, least=0.0)
    best = max(zip(cosines[1:3], texts[1:3], strict=True))
    assert list(one["wordings"]) == [texts[0], best[1]]
    ((alone,),) = annotated("neighbours", [row], encoder=CLIP, least=1.0)
    assert alone["wordings"] == {texts[0]: 1.0}

    inner = {"name": "relevance", "encoder": CLIP}
    fused = mmalign.load_reward("marginal", inner=inner, column="wordings", template="{context}")
    value = fused(Rollout.of([Prompt(row["prompt"], meta=every)], ["two stars"])).value[0]
    each = mmalign.load_reward(**inner)(Rollout.of(list(every["wordings"]), ["two stars"] * len(kept))).value.tolist()
    assert float(value) == pytest.approx(
        sum(w * v for w, v in zip(every["wordings"].values(), each, strict=True)), abs=1e-5
    )
    with pytest.raises(ConfigError, match="column and pool: both are empty"):
        annotators.build({"name": "neighbours", "encoder": CLIP, "column": ""}, "neighbours")


def test_the_corners_of_a_hull_are_kept() -> None:
    square = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0.5], [0.5, 0.4], [0, 0]], float)
    lifted = square @ np.random.default_rng(0).normal(size=(2, 9)) + 3.0  # the plane lies anywhere in nine dimensions
    assert hull_corners(lifted, 2) == [0, 1, 2, 3] and hull_corners(square, 5) == [0, 1, 2, 3]
    line = np.outer([0.0, 2.0, 1.0, -1.0], np.ones(4))
    assert hull_corners(line, 2) == [1, 3] and hull_corners(line[:1], 2) == [0] and hull_corners(line[:2], 2) == [0, 1]


def test_wordings_at_the_corners_become_rows() -> None:
    texts = [
        f"{count} {colour} {shape}s"
        for count in ("two", "three")
        for colour in ("red", "blue")
        for shape in ("star", "circle")
    ]
    row = PAIR | {"prompt": texts[0], "paraphrases": texts[1:]}
    (made,) = annotated("convex_hull", [row], encoder=CLIP)
    points = text_encoder(CLIP).texts(texts).double().numpy()
    assert [r["prompt"] for r in made[1:]] == [texts[i] for i in hull_corners(points, 2) if i]
    assert made[0] == {name: value for name, value in row.items() if name != "paraphrases"}
    assert 2 <= len(made) <= len(texts) and all(r["chosen"] == PAIR["chosen"] for r in made)
    assert annotated("convex_hull", [PAIR], encoder=CLIP) == ["'paraphrases' holds no list of texts"]


def test_retrieved_are_the_nearest_other_texts(tmp_path: Path) -> None:
    texts = ["a red circle", "one red circle", "a blue star", "two green squares", "a red circle"]
    index = tmp_path / "index.jsonl"
    index.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    options = {"encoder": CLIP, "index": str(index), "count": 2, "least": -1.0}
    ((first,), skipped) = annotated("retrieved", [{"prompt": texts[0], "id": 3}, {"prompt": ""}], **options)
    embedded = torch.nn.functional.normalize(text_encoder(CLIP).texts(texts[:4]), dim=1)
    cosine = (embedded[1:] @ embedded[0]).tolist()
    order = sorted(range(3), key=lambda i: -cosine[i])[:2]
    assert first["positive"] == [texts[1 + i] for i in order] and first["id"] == 3
    assert first["nearness"] == pytest.approx([cosine[i] for i in order], abs=1e-5)
    assert skipped == "'prompt' holds no text"
    assert annotated("retrieved", [{"prompt": "a cross"}], **{**options, "least": 1.0}) == [
        "no other text of the index is as near as 1"
    ]
    with pytest.raises(ConfigError, match="has no text in 'words'; its first row has prompt"):
        annotated("retrieved", [], **options, column="words")
