"""A checkpoint that lacks one tensor, in whichever component of whichever family, is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters import load_adapter
from mmalign.core.errors import CheckpointError
from mmalign.core.files import assets_root
from mmalign.loading.clip import open_clip_folder, open_clip_model
from mmalign.loading.exclusive import loading
from mmalign.loading.folders import network_folder
from mmalign.loading.networks import open_network
from tests.adapters import tiny
from tests.loading.damage import rewrite, weights_of, without_one
from tests.loading.writers import WRITERS

UNREAD = {"audio_tokenizer", "audio_token_detokenizer"}  # components that the adapter leaves out


def loaded(name: str, folder: Path) -> Any:
    more: dict[str, Any] = (
        {"seconds": 0.5} if folder.exists() and name == "stable_audio_3" and "tunes" not in str(folder) else {}
    )
    return load_adapter(name, model=str(folder), device="cpu", train="frozen", **more)


@pytest.mark.parametrize("name", WRITERS)
def test_one_tensor_less_in_any_component_is_a_sentence(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        whole = WRITERS[name](tmp_path / "whole")
    loaded(name, whole)
    parts = [part.relative_to(whole) for part in weights_of(whole) if part.name not in UNREAD]
    assert parts
    for part in parts:
        damaged = shutil.copytree(whole, tmp_path / "damaged")
        gone = without_one(damaged / part)
        with pytest.raises(CheckpointError, match=r"tensors of \w+ are missing, the first is") as caught:
            loaded(name, damaged)
        assert str(damaged / part) in str(caught.value), f"{part}: {gone}"
        shutil.rmtree(damaged)
    loaded(name, whole)  # and the process loads as before


ASSETS = {
    "scenes_sd3": "sd3",
    "tunes_sa3": "stable_audio_3",
    "scenes_captioner": "image_text",
    "scenes_rewriter": "causal_lm",
}


@pytest.mark.parametrize("asset", ASSETS)
def test_embedded_models_are_complete_and_noticed_when_they_are_not(asset: str, tmp_path: Path) -> None:
    if not (assets_root() / asset).is_dir():
        pytest.skip(f"assets/{asset} is not in this checkout")
    for part in weights_of(assets_root() / asset):
        damaged = shutil.copytree(assets_root() / asset, tmp_path / "damaged")
        without_one(damaged / part.relative_to(assets_root() / asset))
        with pytest.raises(CheckpointError, match="the first is"):
            loaded(ASSETS[asset], damaged)
        shutil.rmtree(damaged)


def test_clap_and_clip_towers_are_complete_or_refused(tmp_path: Path) -> None:
    clap = shutil.copytree(assets_root() / "tunes_clap", tmp_path / "clap")
    open_network(network_folder(str(clap)), "ClapModel")
    gone = without_one(clap)
    with pytest.raises(CheckpointError, match=r"tensors of ClapModel are missing, the first is") as caught:
        open_network(network_folder(str(clap)), "ClapModel")
    assert gone in str(caught.value)
    clip = shutil.copytree(assets_root() / "scenes_clip", tmp_path / "clip")
    open_clip_model(open_clip_folder(str(clip)))
    gone = without_one(clip)
    with pytest.raises(CheckpointError, match=r"clip: no CLIP could be built from it: .*Missing key") as caught:
        open_clip_model(open_clip_folder(str(clip)))
    assert gone in str(caught.value)


def test_a_tensor_more_and_one_of_another_shape_are_faults(tmp_path: Path) -> None:
    whole = tiny.write_tiny_sd(tmp_path / "whole")
    damaged = shutil.copytree(whole, tmp_path / "more")
    rewrite(damaged / "vae", lambda state: state.update({"decoder.conv_in.gain": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"vae: 1 tensors are not AutoencoderKL's.*'decoder.conv_in.gain'"):
        loaded("sd", damaged)
    for part in ("text_encoder", "unet"):
        damaged = shutil.copytree(whole, tmp_path / part)
        rewrite(damaged / part, lambda state: state.update({key: torch.ones(3, 5) for key in [min(state)]}))
        with pytest.raises(CheckpointError, match=part):
            loaded("sd", damaged)


def test_a_pipeline_that_was_saved_with_its_lora_attached_says_what_to_call(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    from mmalign.adapters.weights.lora import LoRA, attach

    folder = tiny.write_tiny_sd(tmp_path / "whole")
    pipe = DiffusionPipeline.from_pretrained(folder)
    attach(pipe.unet, LoRA(rank=2), ["to_q"])
    pipe.fuse_lora(components=["unet"])
    pipe.save_pretrained(tmp_path / "fused")
    with pytest.raises(CheckpointError, match=r"unet: was saved with a LoRA still attached.*unload_lora_weights\(\)"):
        loaded("sd", tmp_path / "fused")
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "plain")
    loaded("sd", tmp_path / "plain")


def test_heads_of_another_task_may_stand_beside_a_backbone_and_are_told(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    BertForMaskedLM(BertConfig(num_attention_heads=2, **shape)).save_pretrained(tmp_path)
    pooler = (r"(^|\.)pooler\.",)
    with pytest.warns(UserWarning, match=r"tensors of parts that BertModel does not have are left out, .*'cls\."):
        open_network(network_folder(str(tmp_path)), "AutoModel", spare=pooler, heads=True)
    with pytest.raises(CheckpointError, match=r"tensors are not BertModel's, the first is 'cls\."):
        open_network(network_folder(str(tmp_path)), "AutoModel", spare=pooler)
    with pytest.raises(CheckpointError, match=r"2 tensors of BertModel are missing, the first is 'pooler.dense.bias'"):
        open_network(network_folder(str(tmp_path)), "AutoModel", heads=True)
    rewrite(tmp_path, lambda state: state.update({"bert.encoder.layer.0.gate.weight": torch.ones(1)}))
    with pytest.raises(
        CheckpointError, match=r"1 tensors are not BertModel's, the first is 'bert.encoder.layer.0.gate"
    ):
        open_network(network_folder(str(tmp_path)), "AutoModel", spare=pooler, heads=True)


def test_bars_and_notices_come_back_after_loading() -> None:
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with loading():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)
