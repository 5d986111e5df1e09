"""The caption rewards of CLIP against CLIPScore's own formulas in float64, and what the grammar head is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.models.clip_towers import Source, load_towers
from mmalign.rewards.models.grammar_head import load_grammar_head
from pipelines._corruption import WAYS, corrupted
from tests.rewards.conftest import SIZE
from tests.rewards.doubles import noting

CAPTIONS = ["a red circle", "two blue star", "green square and a star", "a red circle"]
REFERENCES = [["a red circle"], ["blue star", "two star and a circle"], ["red"], "a circle"]


def picture(seed: int, width: int = SIZE) -> Tensor:
    return torch.rand(3, SIZE, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def rows() -> Rollout:
    """Two pictures of different sizes, two captions each."""
    media = [{"image": picture(i, SIZE + 8 * i)} for i in range(2)]
    prompts = [Prompt("describe", media[i], {"references": r}) for i, r in zip((0, 0, 1, 1), REFERENCES, strict=True)]
    return Rollout(prompts, list(CAPTIONS), torch.tensor([0, 0, 1, 1]))


def cosines(clip: Path, rows: Rollout, prefix: str) -> Tensor:
    """Cosines of captions and pictures by open_clip itself, one pair at a time, in float64."""
    towers = load_towers(Source(str(clip)))
    by_pair = []
    for prompt, caption in zip(rows.prompts, rows.output, strict=True):
        with torch.no_grad():
            image = towers.encode_image(towers.preprocess(prompt.media["image"][None]))[0].double()
            text = towers.encode_text(towers.tokenize([prefix + caption]))[0].double()
        by_pair.append(image @ text / image.norm() / text.norm())
    return torch.stack(by_pair)


def likeness(clip: Path, first: str, second: str) -> float:
    towers = load_towers(Source(str(clip)))
    with torch.no_grad():
        a, b = (towers.encode_text(towers.tokenize([text]))[0].double() for text in (first, second))
    return float(a @ b / a.norm() / b.norm())


def test_clip_s_is_the_papers_and_the_picture_is_seen_once(
    tiny_clip: Path, rows: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = load_reward("clip_s", checkpoint=str(tiny_clip))
    seen: list[int] = []
    encode_image = noting(reward.towers.encode_image, lambda x: seen.append(len(x)))
    monkeypatch.setattr(reward.towers, "encode_image", encode_image)
    scores = reward(rows)
    assert seen == [1, 1]  # two pictures
    want = 2.5 * cosines(tiny_clip, rows, "A photo depicts ").clamp_min(0)
    torch.testing.assert_close(scores.value, 2 * want.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.parts["clip_s"], want.float(), atol=1e-5, rtol=0)
    raw = load_reward("clip_s", checkpoint=str(tiny_clip), clipped=False, weight=1.0)
    torch.testing.assert_close(raw(rows).value, 2.5 * cosines(tiny_clip, rows, raw.prefix).float(), atol=1e-5, rtol=0)
    assert reward.range == (0.0, 5.0) and raw.range == (-2.5, 2.5)


def test_the_grammar_head_adds_its_probability_without_the_prefix(
    tiny_clip: Path, rows: Rollout, grammar_head: Path
) -> None:
    plain = load_reward("clip_s", checkpoint=str(tiny_clip))(rows)
    reward = load_reward("clip_s", checkpoint=str(tiny_clip), head=str(grammar_head), grammar_weight=0.5)
    scores = reward(rows)
    alone = load_reward("grammar", checkpoint=str(tiny_clip), head=str(grammar_head))(rows)
    torch.testing.assert_close(scores.value, plain.value + 0.5 * alone.value, atol=1e-6, rtol=0)
    torch.testing.assert_close(scores.parts["grammar"], alone.value)
    towers, weights = load_towers(Source(str(tiny_clip))), load_grammar_head(str(grammar_head)).layers
    with torch.no_grad():
        states = towers.pooled_texts(["two blue star"]).double()
    logits = (states @ weights[0][0].double().T).relu() @ weights[1][0].double().T
    assert alone.value[1].item() == pytest.approx(float(logits.softmax(1)[0, 1]), abs=1e-6)
    assert alone.value[0] == alone.value[3] and alone.value.std() > 1e-3 and reward.range == (0.0, 5.5)


def test_pooled_features_projected_are_the_towers_own(tiny_clip: Path, tiny_transformers_clip: Path) -> None:
    ours, theirs = (load_towers(Source(str(folder))) for folder in (tiny_clip, tiny_transformers_clip))
    with torch.no_grad():
        want = ours.encode_text(ours.tokenize(CAPTIONS))
        torch.testing.assert_close(ours.pooled_texts(CAPTIONS) @ ours.module.text_projection, want)
        want = theirs.encode_text(theirs.tokenize(CAPTIONS))
        torch.testing.assert_close(theirs.module.text_projection(theirs.pooled_texts(CAPTIONS)), want)


def test_ref_clip_score_is_the_harmonic_mean_with_the_best_reference(tiny_clip: Path, rows: Rollout) -> None:
    scores = load_reward("ref_clip_score", checkpoint=str(tiny_clip))(rows)
    image = 2.5 * cosines(tiny_clip, rows, "A photo depicts ").clamp_min(0)
    for row, references in enumerate(REFERENCES):
        own = [references] if isinstance(references, str) else references
        best = max(
            max(likeness(tiny_clip, f"A photo depicts {CAPTIONS[row]}", f"A photo depicts {r}") for r in own), 0.0
        )
        want = 2 * float(image[row]) * best / (float(image[row]) + best) if image[row] + best > 0 else 0.0
        assert scores.value[row].item() == pytest.approx(want, abs=1e-5)
    assert (scores.value > 0).any()


def test_statuses_are_those_of_captions(tiny_clip: Path, rows: Rollout, tmp_path: Path) -> None:
    from mmalign.data.lazy_media import LazyMedia
    from mmalign.media.image import write_image

    write_image(picture(1), tmp_path / "torn.png")
    lazy = LazyMedia({"image": "torn.png"}, tmp_path, "row 1")
    meta = {"references": ["a star"]}
    prompts = [Prompt("d", meta=meta), rows.prompts[0], Prompt("d", lazy, meta), Prompt("d", rows.prompts[0].media)]
    (tmp_path / "torn.png").write_bytes(b"no picture")
    made = Rollout(prompts, ["a star", "  ", "a star", "a star"], torch.arange(4))
    wanted = [Status.NOT_APPLICABLE, Status.PARSE_FAIL, Status.ERROR, Status.OK]
    for name, last in (("clip", Status.OK), ("clip_s", Status.OK), ("ref_clip_score", Status.NOT_APPLICABLE)):
        scores = Guarded(name, load_reward(name, checkpoint=str(tiny_clip)), failed_share=1.0)(made)
        assert scores.status.tolist() == [*wanted[:3], last], name
        assert "torn.png" in scores.info[2] and scores.value[[0, 2]].isnan().all()


def test_heads_that_do_not_fit_are_refused(tiny_clip: Path, tmp_path: Path, linear_head: Path, rows: Rollout) -> None:
    from safetensors.torch import save_file

    options: dict[str, Any] = {"checkpoint": str(tiny_clip)}
    with pytest.raises(DataError, match="gives 1 numbers; a grammar head gives two"):
        load_reward("grammar", head=str(linear_head), **options)(rows)
    save_file({"0.weight": torch.ones(2, 5)}, tmp_path / "narrow.safetensors")
    with pytest.raises(ConfigError, match="takes 5 features, but the text tower gives 32"):
        load_reward("grammar", head=str(tmp_path / "narrow.safetensors"), **options)(rows)
    with pytest.raises(ConfigError, match=r"clip_s: lost.safetensors: no such file or folder"):
        load_reward("clip_s", head="lost.safetensors", **options)
    with pytest.raises(ConfigError, match=r"weight: must be above 0 \(got -1\.0\)"):
        load_reward("clip_s", weight=-1.0, **options)


def test_the_cache_tells_heads_apart(tiny_clip: Path, grammar_head: Path) -> None:
    with_head = load_reward("clip_s", checkpoint=str(tiny_clip), head=str(grammar_head))
    assert identity(with_head) != identity(load_reward("clip_s", checkpoint=str(tiny_clip)))


# what the head is trained on ---------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.lists(st.sampled_from(["a", "red", "b", "circle"]), max_size=7), st.integers(0, 10**6))
def test_negatives_are_never_the_caption_and_keep_to_their_way(words: list[str], seed: int) -> None:
    caption = " ".join(words)
    for way in WAYS:
        made = corrupted(caption, ["new"], np.random.default_rng(seed), way=way)
        again = corrupted(caption, ["new"], np.random.default_rng(seed), way=way)
        assert made == again
        if made is None:
            assert len(words) < 2 or len(set(words)) == 1
            continue
        tokens = made.split()
        assert tokens != words
        if way in ("swap", "shuffle"):
            assert sorted(tokens) == sorted(words)
        elif way == "remove":
            assert 1 <= len(words) - len(tokens) <= 3
        elif way == "insert":
            assert [w for w in tokens if w != "new"] == words and 1 <= tokens.count("new") <= 3
        else:
            assert 1 <= len(tokens) - len(words) <= 9 and set(tokens) == set(words)


def test_what_is_well_formed_is_no_negative() -> None:
    rng = np.random.default_rng(0)
    negatives = {corrupted("a red circle", ["x"], rng, lambda text: text == "a circle", "remove") for _ in range(60)}
    assert "a circle" not in negatives and {"red circle", "a red"} <= negatives
    assert corrupted("circle", ["x"], rng, way="shuffle") is None


def test_the_pipeline_trains_a_head_that_the_rewards_read(
    tiny_clip: Path, tiny_transformers_clip: Path, tmp_path: Path
) -> None:
    from pipelines.grammar_head import captions_in, main

    colours, shapes = ("red", "blue", "green"), ("circle", "star")
    written = [f"{n} {c} {s}" for n in ("a", "two", "three") for c in colours for s in shapes]
    (tmp_path / "captions.txt").write_text("\n".join([*written, "", written[0]]) + "\n", encoding="utf-8")
    captions = captions_in(str(tmp_path / "captions.txt"))
    assert captions == written
    main(captions, Source(str(tiny_clip)), tmp_path / "made", lambda text: False, steps=150)
    held_out = json.loads((tmp_path / "made" / "provenance.json").read_text())["held_out"]
    assert set(held_out) == {*WAYS, "captions"}
    reward = load_reward("grammar", checkpoint=str(tiny_clip), head=str(tmp_path / "made" / "head.safetensors"))
    texts = ["three green star", "star star three star green", "a blue circle", "circle a blue"]
    value = reward(Rollout([Prompt("d")] * 4, texts, torch.arange(4))).value
    assert value[[0, 2]].min() > value[[1, 3]].max()
    other = {"checkpoint": str(tiny_transformers_clip), "head": reward.head}
    with pytest.raises(ConfigError, match=r"was trained on the CLIP model .* or train a head for this one"):
        load_reward("grammar", **other)(Rollout([Prompt("d")], ["a star"], torch.arange(1)))


def test_the_embedded_head_is_of_the_embedded_clip_and_tells_captions_from_their_ruins() -> None:
    """Held-out captions against each way of ruining them; retrained with `python -m pipelines.grammar_head`."""
    from mmalign.miniworld.splits import heldout_requests
    from pipelines.grammar_head import in_scenes

    reward = load_reward("grammar", checkpoint="assets/scenes_clip", head="assets/scenes_grammar/head.safetensors")
    captions = [request.text for request in heldout_requests(60)]
    vocabulary = sorted({word for caption in captions for word in caption.split()})
    rng = np.random.default_rng(0)

    def judged(texts: list[str]) -> Tensor:
        return reward(Rollout([Prompt("d")] * len(texts), texts, torch.arange(len(texts)))).value

    whole = judged(captions)
    for way in WAYS:
        pairs = [(i, corrupted(text, vocabulary, rng, in_scenes, way)) for i, text in enumerate(captions)]
        ruined = judged([text for _, text in pairs if text])
        better = whole[[i for i, text in pairs if text]] > ruined
        assert better.float().mean() >= 0.8, way
