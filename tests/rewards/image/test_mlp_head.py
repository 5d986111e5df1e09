"""Heads on CLIP features: equal to their layers one by one, in every published shape, and faults by their sentence."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Prompt, Status
from mmalign.rewards import load_reward
from mmalign.rewards.models.clip_towers import Source, load_towers
from mmalign.rewards.models.head import read_head
from tests.rewards.doubles import pictures

WIDTHS = (16, 1024, 128, 64, 16, 1)


def test_aesthetic_equals_the_layers_one_by_one(tiny_clip, linear_head):
    rollout = pictures(size=32)
    scores = load_reward("aesthetic", head=str(linear_head), checkpoint=str(tiny_clip))(rollout)
    t = load_file(linear_head)
    x = load_towers(Source(str(tiny_clip))).images(rollout.output)
    expected = (x @ t["layers.0.weight"].T + t["layers.0.bias"]) @ t["layers.2.weight"].T + t["layers.2.bias"]
    assert torch.allclose(scores.value, expected[:, 0], atol=1e-5)


def published():
    """LAION's and ImageReward's module, as their code lays it out (dropouts take up numbers), at 16 features."""
    layers: list[nn.Module] = []
    for i, (width, following) in enumerate(itertools.pairwise(WIDTHS)):
        layers.append(nn.Linear(width, following))
        layers += [nn.Dropout(0.2 if i < 2 else 0.1)] if i < 3 else []
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("prefix", ["layers.", "mlp.layers."])
def test_the_published_shape_under_its_own_names(prefix, tiny_clip, tmp_path):
    torch.manual_seed(0)
    module = published()
    names = [name for name in module.state_dict() if name.endswith("weight")]
    assert [name.split(".")[0] for name in names] == ["0", "2", "4", "6", "7"]
    save_file({prefix + k: v for k, v in module.state_dict().items()}, tmp_path / "head.safetensors")
    rollout = pictures(size=32)
    rollout.output.requires_grad_()
    reward = load_reward(
        "mlp_head", head=str(tmp_path / "head.safetensors"), checkpoint=str(tiny_clip), mean=0.25, std=2.0
    )
    value = reward(rollout).value
    features = load_towers(Source(str(tiny_clip))).images(rollout.output)
    assert torch.allclose(value, (module(features)[:, 0] - 0.25) / 2, atol=1e-6)
    (slope,) = torch.autograd.grad(value.sum(), rollout.output)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize(("activation", "between"), [("relu", nn.ReLU()), ("gelu", nn.GELU()), ("tanh", nn.Tanh())])
def test_an_activation_stands_between_the_layers_and_not_after_them(activation, between, linear_head):
    t = load_file(linear_head)
    x = torch.randn(5, 16)
    expected = between(x @ t["layers.0.weight"].T + t["layers.0.bias"]) @ t["layers.2.weight"].T + t["layers.2.bias"]
    assert torch.allclose(read_head(str(linear_head), activation)(x), expected[:, 0], atol=1e-5)
    assert read_head(str(linear_head), activation).digest() != read_head(str(linear_head)).digest()


def test_a_product_head_of_ones_is_the_clip_score_and_prompts_matter(tiny_clip, tmp_path):
    rollout = pictures(("a red circle", "two blue stars"), size=32)
    save_file({"0.weight": torch.full((1, 16), 3.0)}, tmp_path / "one.safetensors")
    product = load_reward(
        "mlp_head", head=str(tmp_path / "one.safetensors"), checkpoint=str(tiny_clip), features="product"
    )
    towers = load_towers(Source(str(tiny_clip)))
    cosine = (towers.images(rollout.output) * towers.texts([p.text for p in rollout.prompts])).sum(1)
    assert torch.allclose(product(rollout).value, 3 * cosine, atol=1e-6)
    weight = torch.randn(1, 32)
    save_file({"0.weight": weight}, tmp_path / "two.safetensors")
    both = load_reward(
        "mlp_head", head=str(tmp_path / "two.safetensors"), checkpoint=str(tiny_clip), features="image_and_text"
    )
    expected = torch.cat([towers.images(rollout.output), towers.texts([p.text for p in rollout.prompts])], 1) @ weight.T
    assert torch.allclose(both(rollout).value, expected[:, 0], atol=1e-6)
    rollout.prompts[1] = Prompt("")
    assert [reward(rollout).status.tolist()[:2] for reward in (product, both)] == [[0, int(Status.NOT_APPLICABLE)]] * 2


def test_heads_that_do_not_fit(tiny_clip, tmp_path):
    def made(**tensors):
        save_file({k.replace("_", "."): v for k, v in tensors.items()}, tmp_path / "h.safetensors")
        return load_reward("aesthetic", head=str(tmp_path / "h.safetensors"), checkpoint=str(tiny_clip))

    with pytest.raises(DataError, match=r"no linear layers 'N\.weight' in it; found scale"):
        made(scale=torch.ones(1))(pictures(size=32))
    with pytest.raises(DataError, match=r"1\.weight takes 5 features, but 4 come in"):
        made(**{"0_weight": torch.ones(4, 16), "1_weight": torch.ones(1, 5)})(pictures(size=32))
    with pytest.raises(DataError, match="the last layer gives 2 numbers; a score is one"):
        made(**{"0_weight": torch.ones(2, 16)})(pictures(size=32))
    with pytest.raises(DataError, match=r"0\.weight is \(1, 16, 1\); a linear layer has two axes"):
        made(**{"0_weight": torch.ones(1, 16, 1)})(pictures(size=32))
    with pytest.raises(DataError, match=r"layers of several stacks \(blip\., mlp\.\); keep only those of the head"):
        made(mlp_0_weight=torch.ones(1, 16), blip_0_weight=torch.ones(1, 16))(pictures(size=32))
    with pytest.raises(ConfigError, match=r"takes 9 features, but the CLIP model gives 16 \(features: image\)"):
        made(**{"0_weight": torch.ones(1, 9)})(pictures(size=32))
    with pytest.raises(ConfigError, match="no such file"):
        load_reward("aesthetic", head="nowhere.safetensors", checkpoint=str(tiny_clip))
    (tmp_path / "p.pth").write_bytes(b"\x80\x04pickled")
    with pytest.raises(DataError, match=r"p\.pth: not a safetensors file"):
        load_reward("aesthetic", head=str(tmp_path / "p.pth"), checkpoint=str(tiny_clip))(pictures(size=32))
    with pytest.raises(ConfigError, match=r"std: must be above 0 \(got 0\.0\)"):
        load_reward("mlp_head", head=str(tmp_path / "h.safetensors"), checkpoint=str(tiny_clip), std=0.0)
