"""Every reward on tiny checkpoints, and outputs that it judges: for what is tried on all of them."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.core.types import Audio, Prompt, Rollout
from mmalign.rewards import rewards
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.sounds import tones
from tests.run.serving.in_thread import serving

GENERATOR = {
    "adapter": {"name": "sd3", "model": "assets/scenes_sd3", "max_sequence_length": 1, "text_encoder_3": False},
    "policy": {"name": "flow", "noise_level": 0, "num_inference_steps": 4, "guidance_scale": 3.0},
}
SEEING: dict[str, Any] = {"adapter": {"name": "image_text"}, "policy": {"name": "tokens"}}
NAMES = rewards.names()
SETS = ("frechet", "mmd", "vendi", "fad", "kad")
#: Their packages are optional; see test_sound_rules.py, test_ocr.py and test_speech.py.
UNINSTALLED = ("aesthetics", "ocr", "pitch", "speech", "speechquality")
TEXTS = ["a red circle", "two blue squares", "a star and a circle"]


@pytest.fixture(scope="module")
def make(
    tiny_clip,
    tiny_transformers_clip,
    tiny_clap,
    picture_folder,
    sound_folder,
    linear_head,
    grammar_head,
    lm_folder,
    tmp_path_factory,
):
    """Any reward, built on tiny checkpoints."""
    checkpoint, reference = {"checkpoint": str(tiny_clip)}, {"reference": str(picture_folder)}
    corpus = tmp_path_factory.mktemp("corpus") / "captions.txt"
    corpus.write_text("\n".join(TEXTS) + "\n")
    judge = {
        "checkpoint": str(write_tiny_vlm(tmp_path_factory.mktemp("judge") / "llava", "llava", chat=True)),
        "judge": {"yes": "good", "no": "bad", "least_mass": 0.0},
    }
    options: dict[str, dict[str, Any]] = {
        "align_evaluator": judge,
        "criteria": judge | {"criteria": ["say two", {"text": "say red", "kind": "hard"}]},
        "cider": {"corpus": str(corpus)},
        "bmas": checkpoint,
        "budgeted": {"inner": {"name": "clip", **checkpoint}, "encoder": str(tiny_clip)},
        "contrastive": {"encoder": str(tiny_clip)},
        "clip": checkpoint,
        "clip_r_precision": checkpoint,
        "clip_s": checkpoint,
        "aesthetic": checkpoint | {"head": str(linear_head)},
        "grammar": checkpoint | {"head": str(grammar_head)},
        "density_ratio": {"strong": str(lm_folder("llama")), "weak": str(lm_folder("qwen2"))},
        "critiqued": {
            "inner": {"name": "length", "low": 3.0},
            "critic": {
                "adapter": {**SEEING["adapter"], "model": judge["checkpoint"]},
                "policy": {"name": "tokens", "max_new_tokens": 4},
            },
        },
        "follow_up": {
            "checkpoint": SEEING | {"adapter": {**SEEING["adapter"], "model": judge["checkpoint"]}},
            "good": ["good"],
        },
        "hybrid": {"rule": {"name": "exact_match"}, "model": {"name": "length", "low": 5.0}},
        "marginal": {"inner": {"name": "clip", **checkpoint}, "contexts": ["say", "draw"]},
        "mlp_head": checkpoint | {"head": str(linear_head), "activation": "gelu"},
        "frechet": reference | {"encoder": str(tiny_clip)},
        "mmd": reference | {"encoder": str(tiny_clip)},
        "ref_clip_score": checkpoint,
        "vendi": {"encoder": str(tiny_clip)},
        "verifier": {"graded": True},
        "clap": {"checkpoint": str(tiny_clap)},
        "clap_music": {"checkpoint": str(tiny_clap)},
        "hpsv2": checkpoint,
        "laion_aesthetic": checkpoint | {"head": str(linear_head)},
        "pairwise": judge,
        "pickscore": {"checkpoint": str(tiny_transformers_clip)},
        "fad": {"reference": str(sound_folder), "encoder": {"name": "clap", "checkpoint": str(tiny_clap)}},
        "kad": {"reference": str(sound_folder), "encoder": {"name": "spectral"}},
        "song_fad": {"reference": str(sound_folder), "encoder": {"name": "spectral"}},
        "relevance": {"encoder": str(tiny_clip)},
        "router": {"table": {"open": {"name": "length", "low": 5.0}, "closed": {"name": "exact_match"}}},
        "reward_model": {"model": str(lm_folder("llama"))},
        "through": {"generator": GENERATOR, "inner": {"name": "verifier"}},
        "yes_no": judge,
    }
    with ExitStack() as servers:

        def built(name, **more):
            if name == "remote" and name not in options:  # asks a server of another
                served = {"clip": rewards.build({"name": "clip", **checkpoint}, "clip")}
                options[name] = {"url": servers.enter_context(serving(served))[0]}
            return rewards.build({"name": name, **options.get(name, {}), **more}, name)

        yield built


def scenes(per_prompt=2):
    """Rendered scenes, some of them of the prompt, slightly noisy."""
    from mmalign.miniworld.grammar import parse, sample_scene
    from mmalign.miniworld.scenes import render

    rng = np.random.default_rng(0)
    texts = [text for text in TEXTS for _ in range(per_prompt)]
    images = [render(sample_scene(parse(TEXTS[(i // 2) % 3]), rng), rng) for i in range(len(texts))]
    output = torch.from_numpy(np.stack(images)).float()
    output = (output + 0.01 * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    points = [{"point": "counting", "question": "say two"}, {"point": "size", "question": "say red", "parent": 0}]
    negatives = {text: [other for other in TEXTS if other != text] for text in TEXTS}
    prompts = [Prompt(text, meta={"key_points": points, "negatives": negatives[text]}) for text in texts]
    return Rollout(prompts, output, torch.arange(len(texts)) // per_prompt)


def value_of(reward, rollout):
    return reward.credit(reward.embed(rollout)) if not callable(reward) else reward(rollout).value


def judged(reward):
    """Six outputs of a kind that it judges."""
    if type(reward).__name__.lower() in UNINSTALLED or not reward.modalities & {"image", "audio"}:
        pytest.skip("judges texts only (see below), or needs a package of its own")
    return scenes() if "image" in reward.modalities else tones(6, seconds=0.7)


def plain(output):
    """The tensor behind it."""
    return output.samples if isinstance(output, Audio) else output
