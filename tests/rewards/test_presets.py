"""Published reward models by name, against their authors' own formulas on tiny random checkpoints."""

import pytest
import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.rewards import load_reward
from tests.rewards.doubles import pictures
from tests.rewards.sounds import tones

TEXTS = ("a red circle", "two blue square")


def rounded(size):
    rollout = pictures(TEXTS, size=size)
    rollout.output = (rollout.output * 255).round() / 255  # PIL holds 8 bits
    return rollout


def test_pickscore_is_its_readmes_formula(tiny_transformers_clip):
    """README of github.com/yuvalkirstain/PickScore: exp(logit_scale) times the cosine of normalised features."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    from mmalign.media.image import to_pil

    rollout = rounded(32)
    rollout.output = torch.cat([rollout.output, rollout.output.flip(3)[:, :, :, :9]], 3)  # not square
    model = AutoModel.from_pretrained(tiny_transformers_clip).eval()
    processor = AutoImageProcessor.from_pretrained(tiny_transformers_clip)
    tokenizer = AutoTokenizer.from_pretrained(tiny_transformers_clip)
    seen = processor(images=[to_pil(image) for image in rollout.output], return_tensors="pt")
    read = tokenizer(
        [p.text for p in rollout.prompts], padding=True, truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        image = model.get_image_features(**seen).pooler_output
        text = model.get_text_features(**read).pooler_output
        image, text = image / image.norm(dim=-1, keepdim=True), text / text.norm(dim=-1, keepdim=True)
        expected = model.logit_scale.exp() * (image * text).sum(1)
    reward = load_reward("pickscore", checkpoint=str(tiny_transformers_clip))
    assert torch.allclose(reward(rollout).value, expected, atol=1e-2)  # a scale of 20 on 8-bit pictures
    bound = model.logit_scale.exp().item()
    assert reward.range == pytest.approx((-bound, bound))


def hps_preprocessed(images, size):
    """`ResizeMaxSize` and `normalize` of github.com/tgxs002/HPSv2, hpsv2/src/open_clip/transform.py, on tensors."""
    import torchvision.transforms.functional as F
    from torchvision.transforms import InterpolationMode

    made = []
    for image in images:
        height, width = image.shape[1:]
        scale = size / max(height, width)
        if scale != 1:
            new = [round(side * scale) for side in (height, width)]
            image = F.resize(image, new, InterpolationMode.BICUBIC, antialias=True)
            high, wide = size - new[0], size - new[1]
            image = F.pad(image, [wide // 2, high // 2, wide - wide // 2, high - high // 2], fill=0)
        made.append(F.normalize(image, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    return torch.stack(made)


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    """Random weights of an architecture of open_clip's list, as a converted file holds them."""
    import open_clip
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("hps") / "HPS.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = open_clip.create_model("ViT-S-32-alt")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return file, model.eval()


@pytest.mark.parametrize("shape", [(160, 250), (300, 210), (224, 224)])
def test_hpsv2_is_its_repositorys_formula(small_weights, shape):
    """`img_score.py`: the diagonal of normalised image features times normalised text features."""
    import open_clip

    file, model = small_weights
    rollout = pictures(TEXTS, size=shape[0])
    rng = torch.Generator().manual_seed(12)
    rollout.output = (torch.rand((len(rollout.prompts), 3, *shape), generator=rng) > 0.5).float()  # bicubic overshoots
    seen = hps_preprocessed(rollout.output, 224)
    with torch.no_grad():
        image = model.encode_image(seen, normalize=True)
        text = model.encode_text(
            open_clip.get_tokenizer("ViT-S-32-alt")([p.text for p in rollout.prompts]), normalize=True
        )
    reward = load_reward("hpsv2", checkpoint=str(file), model="ViT-S-32-alt")
    assert torch.allclose(reward(rollout).value, (image @ text.T).diagonal(), atol=1e-5)
    assert reward.range == (-1.0, 1.0)
    if shape[0] != shape[1]:
        plain = load_reward("clip", model="ViT-S-32-alt", pretrained=str(file))
        assert not torch.allclose(plain(rollout).value, reward(rollout).value, atol=1e-4)  # crops, and does not pad
        assert plain.fingerprint() != reward.fingerprint()


def test_laion_aesthetic_is_its_repositorys_formula(tiny_clip, linear_head):
    """`simple_inference.py`: the layers one after another, on the L2-normalised features."""
    from safetensors.torch import load_file

    rollout = rounded(32)
    reward = load_reward("laion_aesthetic", head=str(linear_head), checkpoint=str(tiny_clip))
    features = load_reward("clip", checkpoint=str(tiny_clip)).towers.images(rollout.output)
    layers = load_file(linear_head)
    hidden = features @ layers["layers.0.weight"].T + layers["layers.0.bias"]
    expected = (hidden @ layers["layers.2.weight"].T + layers["layers.2.bias"])[:, 0]
    assert torch.allclose(reward(rollout).value, expected, atol=1e-5)
    from mmalign.rewards.image.laion_aesthetic import LaionAesthetic

    whole = LaionAesthetic(head=str(linear_head))
    assert (whole.model, whole.pretrained) == ("ViT-L-14-quickgelu", "openai")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("hpsv2", "hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir . && mmalign convert"),
        ("laion_aesthetic", "mmalign convert sac\\+logos\\+ava1-l14-linearMSE.pth"),
        ("clap_music", "hf download lukewys/laion_clap music_audioset_epoch_15_esc_90.14.pt --local-dir ."),
    ],
)
def test_what_must_be_had_first_is_named(name, needed):
    with pytest.raises(ConfigError, match=needed):
        load_reward(name)


def test_a_pickled_file_is_refused_with_its_command(tmp_path):
    file = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({}, file)
    with pytest.raises(ConfigError, match=r"mmalign convert \S*HPS_v2\.1_compressed\.pt \S*\.safetensors"):
        load_reward("hpsv2", checkpoint=str(file))
    with pytest.raises(ConfigError, match="no such file"):
        load_reward("clip", model="ViT-H-14", pretrained="nowhere.safetensors")


def test_weights_of_another_architecture_are_refused(small_weights):
    reward = load_reward("hpsv2", checkpoint=str(small_weights[0]), model="ViT-S-16-alt")
    with pytest.raises(OSError, match=r"ViT-S-16-alt with .*HPS.safetensors: no CLIP could be built from it"):
        reward(pictures(TEXTS, size=32))


def test_a_preset_does_not_take_what_makes_it_one(tiny_transformers_clip):
    with pytest.raises(ConfigError, match="score: unknown option"):
        load_reward("pickscore", checkpoint=str(tiny_transformers_clip), score="cosine")


def test_clap_music_is_clap(tiny_clap):
    rollout = tones()
    same = load_reward("clap", checkpoint=str(tiny_clap))(rollout)
    assert torch.equal(load_reward("clap_music", checkpoint=str(tiny_clap))(rollout).value, same.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PickScore", "Did you mean 'pickscore'\\?"),
        ("HPSv2", "Did you mean 'hpsv2'\\?"),
        ("hps_v2.1", "HPS v2 and v2.1 are reward hpsv2"),
        ("ImageReward", "no component here is a BLIP; rewards pickscore and hpsv2"),
        ("clip_score", "It is reward clip with score: clip_score"),
        ("pickscor", "Did you mean 'pickscore'\\?"),
    ],
)
def test_names_of_other_projects_lead_to_ours(name, message):
    with pytest.raises(ConfigError, match=message):
        load_reward(name)


def test_names_of_other_projects_are_no_names_of_ours():
    from mmalign.rewards import rewards

    assert all(key.isalnum() and key == key.lower() for key in rewards.elsewhere)
    assert not {name.replace("_", "") for name in rewards.built_in()} & set(rewards.elsewhere)


def test_a_preset_downloads_by_name_and_says_so_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from mmalign.rewards.engine.foreign_code import prepare

    with pytest.raises((DataError, OSError), match="yuvalkirstain/PickScore_v1"):
        prepare(load_reward("pickscore"), "reward pickscore")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("pickscore", "yuvalkirstain/PickScore_v1"),
        ("hpsv2", "xswu/HPSv2"),
        ("laion_aesthetic", "christophschuhmann/improved-aesthetic-predictor"),
        ("clap_music", "lukewys/laion_clap"),
    ],
)
def test_the_list_names_where_a_preset_is_from(name, source, monkeypatch, capsys):
    from mmalign.cli.listing import list_components

    monkeypatch.setenv("COLUMNS", "400")
    list_components("rewards")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [name])
    assert source in line


def test_a_run_file_takes_a_preset_by_name():
    from mmalign.run.build import build_slot

    slot = build_slot("rewards.liked", {"name": "pickscore", "weight": 0.04})
    assert slot.reward.score == "logit" and slot.reward.checkpoint == "yuvalkirstain/PickScore_v1"
