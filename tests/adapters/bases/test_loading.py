"""A checkpoint that is incomplete, foreign or pickled is refused by name; one that is whole loads from anywhere."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmalign.adapters import adapters
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError
from mmalign.core.files import local_path
from mmalign.loading.files import check_component
from mmalign.loading.pipelines import checkpoint_folder


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the tiny SD3 checkpoint to damage."""
    return shutil.copytree(checkpoint("sd3"), tmp_path / "model")


def load(model, name="sd3", **options):
    return adapters.build({"name": name, "model": str(model), "device": "cpu", **options}, "adapter").load()


def test_a_truncated_weight_file_is_named(copy):
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        CheckpointError, match=r"transformer/diffusion_pytorch_model\.safetensors: truncated or damaged"
    ):
        load(copy)


def test_missing_parts_are_named(copy):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").rename(copy / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"vae: has only pickled weights \(diffusion_pytorch_model.bin\)"):
        load(copy)
    (copy / "vae" / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"vae: no \*.safetensors weights; copy or download them again"):
        load(copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(CheckpointError, match=r"vae: missing, but model_index.json lists it"):
        load(copy)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model_index.json: cannot be read"):
        load(copy)
    (copy / "model_index.json").unlink()
    with pytest.raises(CheckpointError, match=r"model_index.json: missing; a pipeline folder has it at its top"):
        load(copy)


def test_a_missing_shard_is_named(copy):
    index = {"weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"00002-of-00002.safetensors: missing, but diffusion_pytorch_model"):
        load(copy)


def test_only_the_wanted_variants_list_of_shards_counts(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m.fp16.safetensors")
    for name, shard in (("index", "gone.safetensors"), ("index.fp16", "m.fp16.safetensors")):
        (tmp_path / f"m.safetensors.{name}.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    check_component(tmp_path, "fp16")
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: missing, but m\.safetensors\.index\.json lists it"):
        check_component(tmp_path)


def test_a_checkpoint_of_another_family_names_the_adapter_that_fits(checkpoint):
    with pytest.raises(CheckpointError, match=r"holds a StableDiffusion3Pipeline, this adapter drives .*'sd3'"):
        load(checkpoint("sd3"), "sd")


def test_models_that_are_nowhere_say_where_was_looked(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such folder; give an existing pipeline folder or a Hub id"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"owner/no-such-model: not a local folder, and the Hub did not give it"):
        load("owner/no-such-model")
    single = tmp_path / "model.safetensors"
    single.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a file; .*from_single_file"):
        load(single)


def test_parts_that_are_left_out_are_not_downloaded(checkpoint):
    asked: dict[str, Any] = {}

    class Hub:
        @staticmethod
        def download(model, **options):
            asked.update(options, model=model)
            return str(checkpoint("sd3"))

    assert checkpoint_folder(Hub, "owner/model", "main", "fp16", ["text_encoder_3"]) == checkpoint("sd3")
    assert asked == {
        "model": "owner/model",
        "revision": "main",
        "variant": "fp16",
        "use_safetensors": True,
        "text_encoder_3": None,
    }


def test_an_asset_name_is_the_same_path(checkpoint, tmp_path, monkeypatch):
    shutil.copytree(checkpoint("sd3"), tmp_path / "tiny")
    monkeypatch.setenv("MMALIGN_ASSETS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load("assets/tiny").latent_shape == (4, 8, 8)


def test_sizes_that_the_model_cannot_make_are_refused(checkpoint):
    with pytest.raises(ConfigError, match=r"height: 18 is not a positive multiple of 4.*nearest is 16"):
        load(checkpoint("sd3"), height=18)
    assert load(checkpoint("sd3"), resolution=24).latent_shape == (4, 12, 12)
    largest = json.loads((checkpoint("sd3") / "transformer" / "config.json").read_text())["pos_embed_max_size"] * 4
    with pytest.raises(ConfigError, match=rf"resolution: 512 x 512 pixels, but .* has positions for {largest} a"):
        load(checkpoint("sd3"), resolution=512)


def test_options_are_checked_before_anything_loads():
    with pytest.raises(ConfigError, match=r"adapter\.decode_row: unknown option\. Did you mean 'decode_rows'\?"):
        load("nowhere", decode_row=1)
    with pytest.raises(ConfigError, match=r"decode_rows: must be at least 1 \(got 0\)"):
        load("nowhere", decode_rows=0)
    with pytest.raises(ConfigError, match=r"adapter\.lora\.rank"):
        load("nowhere", lora={"rank": "many"})
    with pytest.raises(ConfigError, match=r"adapter\.dtype: .*'fp32', 'bf16' or 'fp16'"):
        load("nowhere", dtype="half")


def test_unets_that_take_more_than_noise_time_and_text_are_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("sd"), tmp_path / "model")
    from diffusers import UNet2DConditionModel

    config = dict(UNet2DConditionModel.load_config(folder / "unet"))
    UNet2DConditionModel.from_config(config | {"in_channels": 9}).save_pretrained(folder / "unet")
    with pytest.raises(CapabilityError, match=r"its U-Net takes 9 channels and its autoencoder makes 4"):
        load(folder, "sd")
    UNet2DConditionModel.from_config(config | {"time_cond_proj_dim": 8}).save_pretrained(folder / "unet")
    with pytest.raises(CapabilityError, match=r"takes the guidance scale as an input"):
        load(folder, "sd")


def test_the_embedded_scenes_model_loads_and_draws():
    if local_path("assets/scenes_sd3") is None:
        pytest.skip("assets/scenes_sd3 is not in this checkout: it is trained by `mmalign miniworld`.")
    from tests.adapters.deterministic import sample

    adapter = load("assets/scenes_sd3", lora={"rank": 2})
    x = torch.randn(1, *adapter.latent_shape)
    pictures = adapter.decode(sample(adapter, ["a red circle"], x, 2))
    assert pictures.shape == (1, 3, adapter.height, adapter.width) and pictures.isfinite().all()


@pytest.mark.parametrize(("name", "kinds"), [("sd", ("epsilon", "v")), ("sdxl", ("epsilon", "v")), ("sd3", ("flow",))])
def test_whether_it_is_a_flow_is_known_before_any_weights_are_read(name, kinds):
    assert adapters.build({"name": name, "model": "owner/model"}, "adapter").prediction in kinds


def test_load_adapter_builds_and_loads(checkpoint):
    import mmalign

    adapter = mmalign.load_adapter("sd", model=str(checkpoint("sd_v")), device="cpu", lora={"rank": 1})
    assert adapter.prediction == "v" and not adapter.module.training
    with pytest.raises(ConfigError, match=r"sd\.modell: unknown option\. Did you mean 'model'\?"):
        mmalign.load_adapter("sd", model="x", modell="y")
