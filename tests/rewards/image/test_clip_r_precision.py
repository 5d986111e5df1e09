"""CLIP's choice among texts, against open_clip's own softmax, and on the embedded model."""

import numpy as np
import pytest
import torch

from mmalign.core.types import Prompt, Rollout, Status
from mmalign.miniworld.grammar import hard_negatives, sample_request, sample_scene
from mmalign.miniworld.scenes import render
from mmalign.rewards import load_reward
from tests.rewards.doubles import pictures

WRONG = {"a red circle": ["a blue circle", "a red star", "two red circles"], "two blue squares": ["a blue square"]}


@pytest.fixture
def rollout():
    made = pictures(tuple(WRONG), size=32)
    made.output = (made.output * 255).round() / 255  # PIL holds 8 bits
    made.prompts = [Prompt(prompt.text, meta={"negatives": WRONG[prompt.text]}) for prompt in made.prompts]
    return made


def test_it_is_the_softmax_of_open_clip(tiny_clip, rollout):
    import open_clip

    from mmalign.media.image import to_pil

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")
    expected, hits = [], []
    for prompt, image in zip(rollout.prompts, rollout.output, strict=True):
        texts = tokenizer([prompt.text, *prompt.meta["negatives"]])
        with torch.no_grad():
            logits = model(preprocess(to_pil(image))[None], texts)[0] @ model(None, texts)[1].T * model(None, None)[2]
        expected.append(logits[0].log_softmax(0)[0])
        hits.append(float(logits[0].argmax() == 0))
    options = {"checkpoint": str(tiny_clip)}
    assert torch.allclose(load_reward("clip_r_precision", **options)(rollout).value, torch.stack(expected), atol=1e-4)
    probability = load_reward("clip_r_precision", **options, score="probability")(rollout).value
    assert torch.allclose(probability, torch.stack(expected).exp(), atol=1e-4)
    assert load_reward("clip_r_precision", **options, score="hit")(rollout).value.tolist() == hits


def test_the_slope_is_that_of_finite_differences(tiny_clip, rollout):
    reward = load_reward("clip_r_precision", checkpoint=str(tiny_clip))
    rollout.output.requires_grad_()
    reward(rollout).value.sum().backward()
    direction = torch.randn(rollout.output.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ends = [
            reward(Rollout(rollout.prompts, rollout.output + h * direction, rollout.group)).value.sum()
            for h in (5e-3, -5e-3)
        ]
    slope = ((ends[0] - ends[1]) / 1e-2).item()
    assert slope == pytest.approx((rollout.output.grad * direction).sum().item(), rel=0.05, abs=1e-3)


@pytest.mark.parametrize("score", ["log_probability", "probability", "hit"])
@pytest.mark.parametrize(
    ("meta", "status", "why"),
    [
        ({}, Status.NOT_APPLICABLE, "Prompt.meta has no 'negatives'"),
        ({"negatives": []}, Status.ERROR, "ValueError: Prompt.meta['negatives'] holds no text"),
        ({"negatives": ["a", "a red circle"]}, Status.ERROR, "holds the prompt itself: 'a red circle'"),
    ],
)
def test_a_row_without_wrong_texts_has_a_status_and_no_value(tiny_clip, rollout, score, meta, status, why):
    reward = load_reward("clip_r_precision", checkpoint=str(tiny_clip), score=score)
    whole = reward(rollout).value
    rollout.prompts[0] = Prompt("a red circle", meta=meta)
    scores = reward(rollout)
    assert scores.status[0] == status and scores.value[0].isnan() and why in scores.info[0]
    assert scores.status[1] == Status.OK and scores.value[1] == pytest.approx(whole[1].item(), abs=1e-5)
    assert reward(rollout[:1]).value.isnan().all()


def test_an_empty_prompt_is_not_told_from_wrong_texts(tiny_clip, rollout):
    rollout.prompts[0] = Prompt(" ", meta={"negatives": ["a red star"]})
    rollout.output.requires_grad_()
    scores = load_reward("clip_r_precision", checkpoint=str(tiny_clip))(rollout)
    assert scores.status.tolist() == [Status.NOT_APPLICABLE, *[Status.OK] * 3] and scores.value[0].isnan()
    assert scores.info[0] == "the prompt is empty"
    scores.value[1:].sum().backward()
    assert rollout.output.grad.isfinite().all() and rollout.output.grad[0].abs().max() == 0


def test_only_a_score_with_a_slope_says_it_has_one(tiny_clip):
    made = {
        score: load_reward("clip_r_precision", checkpoint=str(tiny_clip), score=score)
        for score in ("hit", "probability")
    }
    assert not made["hit"].differentiable and made["probability"].differentiable


def test_the_embedded_clip_finds_the_right_one_of_sixteen():
    rng = np.random.default_rng(4)
    prompts, images = [], []
    for _ in range(48):
        request = sample_request(rng)
        scene = sample_scene(request, rng)
        negatives = [other.text for other in hard_negatives(request, 15, rng, scene)]
        prompts.append(Prompt(request.text, meta={"negatives": negatives}))
        images.append(torch.from_numpy(render(scene, rng)).float())
    rollout = Rollout(prompts, torch.stack(images), torch.arange(48))
    reward = load_reward("clip_r_precision", checkpoint="assets/scenes_clip", score="hit")
    assert reward(rollout).value.mean() >= 0.85
