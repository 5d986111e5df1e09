"""The saved vision-language model loads with plain transformers and does roughly what its provenance says."""

import json

import numpy as np
import pytest
import torch

from mmalign.adapters.language.image_text import ImageText
from mmalign.data.sources.scenes import Scenes
from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.grammar import sample_request
from mmalign.miniworld.questions import CAPTION, questions_of
from mmalign.miniworld.vlm_examples import draw_question, likely_questions
from mmalign.policies.tokens import Tokens
from mmalign.rewards import load_reward
from pipelines.miniworld.scenes.vlm_measures import balanced, caption_measures, heldout_scenes, written
from pipelines.miniworld.scenes.vlm_model import ANSWER, build_processor


@pytest.fixture(scope="module")
def folder():
    return asset_path("scenes_vlm")


@pytest.fixture(scope="module")
def processor(folder):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def promised(folder) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["metrics"]
    return metrics


def test_the_tokenizer_comes_back_as_it_was_made(processor) -> None:
    fresh = build_processor()
    rng = np.random.default_rng(0)
    texts = [question.text for _ in range(20) for question in questions_of(sample_request(rng))]
    for text in [*texts, f"{CAPTION} {ANSWER} [ 12 , 0 , 64 , 3 ] <|end|>"]:
        assert processor.tokenizer(text).input_ids == fresh.tokenizer(text).input_ids
    assert processor.chat_template == fresh.chat_template and processor.tokenizer.eos_token == "<|end|>"
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": CAPTION}]}]
    text = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert text == f"<image> {CAPTION} {ANSWER}"


def test_it_keeps_its_promises(model, processor, promised: dict[str, float]) -> None:
    n = 48
    pictures, scenes, told = heldout_scenes(n, seed=5)
    found = caption_measures(written(model, processor, pictures, [CAPTION] * n), scenes, told)
    # Four standard errors of 48 captions whose clauses stand and fall together.
    assert abs(found["caption_clauses"] - promised["caption_clauses"]) < 4 * 0.4 / np.sqrt(n)
    rng = np.random.default_rng(6)
    asked = [
        (picture, scene, draw_question(scene, likely_questions(full, rng), rng, "any"))
        for picture, scene, full in zip(pictures, scenes, told, strict=True)
        for _ in range(4)
    ]
    assert balanced(model, processor, asked) > promised["judge"] - 4 * 0.4 / np.sqrt(4 * n)


def test_the_adapter_answers_as_transformers_does(model, processor, folder) -> None:
    prompts = Scenes(skill="boxes", count=1, held_out=6).held_out_items()
    adapter = ImageText(str(folder), device="cpu", train="full").load()
    rollout = Tokens(adapter, max_new_tokens=40).generate(prompts, torch.Generator().manual_seed(0))
    pictures = [np.round(prompt.media["image"].numpy() * 255).astype(np.uint8) for prompt in prompts]
    assert rollout.output == written(model, processor, pictures, [prompt.text for prompt in prompts])
    assert rollout.truncated is not None and not rollout.truncated.any()
    scores = load_reward("iou")(rollout)
    assert (scores.status == 0).float().mean() > 0.8  # boxes that can be read
