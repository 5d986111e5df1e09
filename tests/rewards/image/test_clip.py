"""CLIP rewards on tiny random checkpoints, against the libraries' own calls."""

import shutil

import pytest
import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward
from mmalign.rewards.models.clip_towers import Source, load_towers
from tests.rewards.doubles import noting, pictures

TEXTS = ("a red circle", "two blue square")


def open_clip_cosines(folder, rollout):
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    from mmalign.media.image import to_pil

    pixels = torch.stack([preprocess(to_pil(image)) for image in rollout.output])
    with torch.no_grad():
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(tokenizer([p.text for p in rollout.prompts]), normalize=True)
    return (image @ text.T).diagonal(), model.logit_scale.exp().item()


def test_cosine_equals_open_clips_own_pipeline(tiny_clip):
    rollout = pictures(TEXTS, size=32)
    rollout.output = (rollout.output * 255).round() / 255  # PIL holds 8 bits
    expected, scale = open_clip_cosines(tiny_clip, rollout)
    scores = load_reward("clip", checkpoint=str(tiny_clip))(rollout)
    assert torch.allclose(scores.value, expected, atol=1e-5)
    scored = load_reward("clip", checkpoint=str(tiny_clip), score="clip_score")
    assert torch.allclose(scored(rollout).value, 2.5 * expected.clamp_min(0), atol=1e-5) and scored.range == (0.0, 2.5)
    logit = load_reward("clip", checkpoint=str(tiny_clip), score="logit")
    assert torch.allclose(logit(rollout).value, scale * expected, atol=1e-4)
    assert logit.range == pytest.approx((-scale, scale))


def test_cosine_equals_transformers_own_pipeline(tiny_transformers_clip):
    from transformers import AutoTokenizer, CLIPModel

    rollout = pictures(TEXTS, size=32)
    model = CLIPModel.from_pretrained(tiny_transformers_clip).eval()
    tokens = AutoTokenizer.from_pretrained(tiny_transformers_clip)(
        [p.text for p in rollout.prompts], padding=True, return_tensors="pt"
    )
    reward = load_reward("clip", checkpoint=str(tiny_transformers_clip), score="logit")
    with torch.no_grad():
        out = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=reward.towers.preprocess(rollout.output),
        )
    assert torch.allclose(reward(rollout).value, out.logits_per_image.diagonal(), atol=1e-4)


def test_gradient_reaches_the_pixels_and_no_weight(tiny_clip):
    rollout = pictures(TEXTS, size=40)
    reward = load_reward("clip", checkpoint=str(tiny_clip))
    rollout.output.requires_grad_()
    reward(rollout).value[0].backward()
    sizes = rollout.output.grad.flatten(1).norm(dim=1)
    assert sizes[0] > 0 and sizes[1:].max() == 0
    assert all(p.grad is None and not p.requires_grad for p in reward.towers.module.parameters())
    direction = torch.randn(rollout.output[:1].shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        one = Rollout(rollout.prompts[:1], rollout.output[:1].detach(), rollout.group[:1])
        ends = [reward(Rollout(one.prompts, one.output + h * direction, one.group)).value for h in (5e-3, -5e-3)]
    slope = ((ends[0] - ends[1]) / 1e-2).item()
    assert slope == pytest.approx((rollout.output.grad[:1] * direction).sum().item(), rel=0.05, abs=1e-3)


def test_a_picture_is_not_held_to_an_empty_prompt(tiny_clip):
    rollout = pictures(("a red circle", ""), size=32)
    rollout.prompts[3] = Prompt(" \n")
    rollout.output.requires_grad_()
    reward = load_reward("clip", checkpoint=str(tiny_clip), prefix="A photo depicts ")
    scores = Guarded("clip", reward)(rollout)
    assert scores.status.tolist() == [Status.OK, Status.OK, Status.NOT_APPLICABLE, Status.NOT_APPLICABLE]
    assert scores.value[2:].isnan().all() and scores.info == ["", "", *["the prompt is empty"] * 2]
    assert torch.allclose(scores.value[:2], reward(rollout[:2]).value, atol=1e-6)
    scores.value[:2].sum().backward()
    sizes = rollout.output.grad.flatten(1).norm(dim=1)
    assert sizes[:2].min() > 0 and sizes[2:].tolist() == [0, 0]


def test_texts_are_encoded_once_each(tiny_clip, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    towers = load_towers(Source(str(folder)))
    seen: list[str] = []
    monkeypatch.setattr(towers, "tokenize", noting(towers.tokenize, seen.extend))
    reward = load_reward("clip", checkpoint=str(folder), prefix="a ")
    reward(pictures(("red", "blue"), per_prompt=3, size=32))
    reward(pictures(("blue", "green"), size=32))
    assert seen == ["a red", "a blue", "a green"]


def test_towers_are_shared_and_reloaded_when_the_files_change(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    first = load_towers(Source(str(folder)))
    assert load_towers(Source(str(folder))) is first
    assert first.fingerprint == load_towers(Source(str(tiny_clip))).fingerprint  # by content, not by place
    config = (folder / "open_clip_config.json").read_text()
    (folder / "open_clip_config.json").write_text(config.replace("shortest", "squash"))
    again = load_towers(Source(str(folder)))
    assert again is not first and again.preprocess.resize == "squash" and again.fingerprint != first.fingerprint


def test_loading_draws_no_global_random_numbers(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    before = torch.get_rng_state()
    load_towers(Source(str(folder)))
    assert torch.equal(before, torch.get_rng_state())


def test_captions_are_judged_against_their_picture(tiny_clip):
    rollout = pictures(("a red circle",), per_prompt=4, size=32)
    image = rollout.output[0]
    prompts = [Prompt("describe", media={"image": image}) for _ in range(3)] + [Prompt("describe")]
    captions = ["a red circle", "two blue star", "  ", "a star"]
    scores = load_reward("clip", checkpoint=str(tiny_clip))(
        Rollout(prompts, captions, torch.zeros(4, dtype=torch.long))
    )
    assert scores.status.tolist() == [Status.OK, Status.OK, Status.PARSE_FAIL, Status.NOT_APPLICABLE]
    both = Rollout([Prompt(c) for c in captions[:2]], image.expand(2, -1, -1, -1), torch.arange(2))
    assert torch.allclose(scores.value[:2], load_reward("clip", checkpoint=str(tiny_clip))(both).value, atol=1e-6)
    assert scores.value[2] == -1 and scores.value[3].isnan()


def test_lower_precision_stays_near(tiny_clip):
    rollout = pictures(TEXTS, size=32)
    full = load_reward("clip", checkpoint=str(tiny_clip))(rollout).value
    half = load_reward("clip", checkpoint=str(tiny_clip), dtype="bfloat16")(rollout).value
    assert half.dtype == torch.float32 and torch.allclose(full, half, atol=0.03)


def test_a_quickgelu_mismatch_is_an_error_before_any_download():
    with pytest.raises(ConfigError, match=r"trained with QuickGELU and 'ViT-B-32' is without.*'ViT-B-32-quickgelu'"):
        load_reward("clip", model="ViT-B-32", pretrained="openai")
    with pytest.raises(ConfigError, match=r"'ViT-B-32-quickgelu' has no tag 'laion2b_s34b_b79k'\. Known: openai"):
        load_reward("clip", model="ViT-B-32-quickgelu", pretrained="laion2b_s34b_b79k")
    assert load_reward("clip", model="ViT-B-32-quickgelu", pretrained="openai").range == (-1.0, 1.0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "name either checkpoint .* or model"),
        ({"checkpoint": "a/b", "model": "ViT-B-32"}, "not both or none"),
        ({"model": "ViT-B-32"}, "model and pretrained go together"),
        ({"checkpoint": "assets/no_such_clip"}, "assets/no_such_clip: no such file or folder, and not a Hub id"),
        ({"checkpoint": "a/b", "score": "cosin"}, r"rewards\.x\.score: .*'cosine', 'clip_score' or 'logit'"),
    ],
)
def test_faults_of_options_are_said_before_loading(options, message):
    from mmalign.rewards import rewards

    with pytest.raises(ConfigError, match=message):
        rewards.build({"name": "clip", **options}, "rewards.x")


def test_folders_that_are_no_checkpoint(tiny_clip, tmp_path):
    with pytest.raises(ConfigError, match=r"no open_clip_config\.json and no config\.json"):
        load_reward("clip", checkpoint=str(tmp_path))
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    (folder / "open_clip_model.safetensors").rename(folder / "weights.bin")
    with pytest.raises(DataError, match=r"no \.safetensors weights in it; convert"):
        load_reward("clip", checkpoint=str(folder))(pictures())
    with pytest.raises(ConfigError, match="open_clip has no 'ViT-Q'"):
        load_reward("clip", model="ViT-Q", pretrained="x")
    with pytest.raises(ConfigError, match=r"'ViT-B-32' has no tag 'x'\. Known: openai"):
        load_reward("clip", model="ViT-B-32", pretrained="x")
