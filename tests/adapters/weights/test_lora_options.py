"""rsLoRA, DoRA, ranks and alphas by layer, and patterns of layers: trained, saved, and read by plain libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.weights.lora import LoRA
from mmalign.core.errors import ConfigError
from tests.adapters.deterministic import sample
from tests.adapters.moving import check_on_policy, move

OPTIONS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"attn.to_q": 3}, "alpha_pattern": {r"transformer_blocks\.1\.attn\.to_[kv]": 7}},
    "regex": {"target_modules": r"transformer_blocks\.0\.(attn\.to_q|ff\.net\.2)"},
}


@pytest.mark.parametrize("how", OPTIONS)
def test_plain_diffusers_reads_it_and_a_run_goes_on_from_it(how: str, make: Any, pipeline: Any, tmp_path: Path) -> None:
    options = {"lora": {"rank": 2, "alpha": 4, **OPTIONS[how]}}
    adapter, pipe = make("sd3", **options), pipeline("sd3")
    start, texts = torch.randn(2, *adapter.latent_shape), ["a red cube", "two dogs"]
    call = {"num_inference_steps": 3, "guidance_scale": 1.0, "latents": start, "output_type": "latent"}
    before = pipe(texts, **call).images
    assert (sample(adapter, texts, start, 3) - before).abs().max() <= 1e-4  # nothing is added yet
    check_on_policy(adapter, fresh=True)
    move(adapter, 0.1)
    trained = sample(adapter, texts, start, 3)
    assert (trained - before).abs().max() > 1e-2
    check_on_policy(adapter, fresh=False)
    adapter.save(tmp_path)
    pipe.load_lora_weights(tmp_path)
    assert (pipe(texts, **call).images - trained).abs().max() <= 1e-4
    again = make("sd3", **options)
    again.restore(tmp_path)
    assert torch.equal(sample(again, texts, start, 3), trained)
    on = make("sd3", start_lora=str(tmp_path), lora={})
    assert torch.equal(sample(on, texts, start, 3), trained)


def test_ranks_and_layers_are_those_that_are_named(make: Any) -> None:
    ranks = {
        key.partition(".lora_")[0]: weight.shape[0]
        for key, weight in make("sd3", lora={"rank": 2, **OPTIONS["patterns"]}).trainable().items()
        if ".lora_A." in key
    }
    assert {rank for layer, rank in ranks.items() if layer.endswith("attn.to_q")} == {3}
    assert {rank for layer, rank in ranks.items() if not layer.endswith("attn.to_q")} == {2}
    layers = {key.partition(".lora_")[0] for key in make("sd3", lora={"rank": 2, **OPTIONS["regex"]}).trainable()}
    assert layers == {"transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff.net.2"}


def test_patterns_that_mean_nothing_are_refused(make: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"lora\.rank_pattern: to_qq is of none of the 14 layers the LoRA goes to, e\.g"
    ):
        make("sd3", lora={"rank": 2, "rank_pattern": {"to_qq": 4}})
    with pytest.raises(
        ConfigError, match=r"target_modules: attn\.\(\?to names no module|attn\.\(to_qq\) names no module"
    ):
        make("sd3", lora={"rank": 2, "target_modules": "attn.(to_qq)"})
    with pytest.raises(ConfigError, match=r"alpha_pattern: \( is no pattern of names \("):
        LoRA(alpha_pattern={"(": 1.0})
    with pytest.raises(
        ConfigError, match=r"freeze_start: what is saved is both LoRAs as one, and DoRA's do not add up"
    ):
        make("sd3", start_lora="x", freeze_start=True, lora={"use_dora": True})
