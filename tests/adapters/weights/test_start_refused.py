"""A LoRA that is not this model's is refused before any weight of the model is read, with every key at fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign.adapters import adapters
from mmalign.core.errors import CheckpointError, ConfigError, MmalignWarning

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The tensors of a saved LoRA of a family."""
    from tests.adapters.moving import loaded
    from tests.loading.writers import WRITERS

    made: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            loaded(name, WRITERS[name](root / "model")).save(root / "lora")
            made[name] = load_file(next((root / "lora").glob("*.safetensors")))
        return dict(made[name])

    return of


@pytest.fixture
def begin(checkpoint: Callable[[str], Path], tmp_path: Path) -> Make:
    """`begin("sd3", tensors)` reads a LoRA of these tensors for a model of which only the configurations are there."""

    def read(name: str, tensors: dict[str, Any] | None, start: Any = None, **options: Any) -> Any:
        bare = tmp_path / f"{name}_without_weights"
        if not bare.exists():
            shutil.copytree(checkpoint(name), bare, ignore=shutil.ignore_patterns("*.safetensors"))
        file = tmp_path / "lora.safetensors"
        if tensors is not None:
            save_file({key: value.clone().contiguous() for key, value in tensors.items()}, file)
        spec = {"name": name, "model": str(bare), "start_lora": start or str(file), "device": "cpu", **options}
        return adapters.build(spec, "adapter").load()

    return read


def test_a_lora_that_fits_gets_as_far_as_the_weights(begin: Make, saved: Any) -> None:
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors weights"):
        begin("sd3", saved("sd3"))


def test_one_of_another_family_or_component_is_refused(begin: Make, saved: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"(?s)64 of 64 keys do not belong to the transformer of StableDiffusion3P"
    ):
        begin("sd3", saved("sd"))
    flux = saved("flux")
    with pytest.raises(
        CheckpointError, match=r"layers are not in this SD3Transformer2DModel: single_transf.*another m"
    ):
        begin("sd3", flux)
    names = sorted(flux)
    many = {f"transformer.x{n}.lora_{side}.weight": flux[names[0]] for n in range(30) for side in "AB"}
    many = {key: torch.zeros(2, 2) for key in many}
    with pytest.raises(
        CheckpointError, match=r"30 of its 30 layers .*: x0, x1, x10, .* and 10 more; it is a LoRA of an"
    ):
        begin("sd3", many)


def test_one_of_another_size_is_refused_layer_by_layer(begin: Make, saved: Any) -> None:
    wider = {key: value.repeat_interleave(2, 1) if ".lora_A." in key else value for key, value in saved("sd3").items()}
    with pytest.raises(
        CheckpointError, match=r"14 of its 14 layers have other widths than this SD3Tr.*\(32 to 16, this"
    ):
        begin("sd3", wider)


def test_transposed_matrices_are_refused_and_halves_are_read(begin: Make, saved: Any) -> None:
    tensors = saved("sd3")
    with pytest.raises(CheckpointError, match=r"lora\.safetensors: .*(different ranks|other widths)"):
        begin("sd3", {key: value.T for key, value in tensors.items()})
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(CheckpointError, match=r"no \*\.safetensors weights"):
            begin("sd3", {key: value.to(dtype) for key, value in tensors.items()})
    some = torch.ones(2, 2)
    for start in ("text_encoder_2.x", "text_encoder_3.x", "lora_te3_x"):
        texts = {f"{start}.lora_{side}.weight": some for side in "AB"}
        with pytest.raises(CheckpointError, match=rf"2 of \d+ keys are of text encoders.*: {start}\.lora_A"):
            begin("sd3", tensors | texts)


def test_half_a_pair_is_refused_naming_the_other_half(begin: Make, saved: Any) -> None:
    tensors = saved("sd3")
    gone = sorted(key for key in tensors if ".lora_B." in key)[:2]
    with pytest.raises(
        CheckpointError, match=rf"2 of the matrices that belong in pairs are missing: {gone[0]}, {gone[1]}"
    ):
        begin("sd3", {key: value for key, value in tensors.items() if key not in gone})
    with pytest.raises(CheckpointError, match=r"two matrices of a layer have different ranks: .* \(1 and 2\)"):
        begin("sd3", tensors | {key: value[:1] for key, value in tensors.items() if ".lora_A." in key})


def test_what_would_be_left_out_without_a_word_is_refused(begin: Make, saved: Any) -> None:
    tensors, some = saved("sd"), torch.ones(2, 2)
    texts = {f"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_{side}.weight": some for side in ("up", "down")}
    with pytest.raises(
        CheckpointError, match=r"2 of 66 keys are of text encoders, which do not train here: lora_te_te"
    ):
        begin("sd", tensors | texts)
    with pytest.raises(CheckpointError, match=r"another method than LoRA \(LoKr, LoHa, …\): unet\.x\.lokr_w1"):
        begin("sd", tensors | {"unet.x.lokr_w1": some})
    with pytest.raises(CheckpointError, match=r"what diffusers leaves out .*: lora_unet_x\.dora_scale; without them"):
        begin("sd", {"lora_unet_x.dora_scale": some})
    with pytest.raises(CheckpointError, match=r"2 of 66 keys do not belong to 'unet': vae\.x\.lora_A\.weight, vae\.x"):
        begin("sd", tensors | {f"vae.x.lora_{side}.weight": some for side in "AB"})
    with pytest.raises(
        CheckpointError, match=r"do not belong to the transformer of StableDiffusion3Pipeline: lora_unet"
    ):
        begin("sd3", {f"lora_unet_joint_blocks_0_x.lora_{side}.weight": some for side in ("up", "down")})


def test_a_place_without_one_lora_is_refused(begin: Make, saved: Any, checkpoint: Any, tmp_path: Path) -> None:
    for place, message in (
        (checkpoint("sd"), r"is a whole model, no LoRA: write adapter.model: .*/sd, without start_lora"),
        (tmp_path / "elsewhere", r"elsewhere: no such folder; give an existing adapter folder or a Hub id"),
    ):
        with pytest.raises(CheckpointError, match=message):
            begin("sd", None, str(place))
    (tmp_path / "several").mkdir()
    with pytest.raises(
        CheckpointError, match=r"several: holds no LoRA \(pytorch_lora_weights\.safetensors, or adapter_m"
    ):
        begin("sd", None, str(tmp_path / "several"))
    for name in ("a", "b"):
        save_file(saved("sd"), tmp_path / "several" / f"{name}.safetensors")
    with pytest.raises(
        CheckpointError, match=r"holds 2 safetensors files \(a\.safetensors, b\.safetensors\); name one"
    ):
        begin("sd", None, str(tmp_path / "several"))
    (tmp_path / "lora.pt").write_bytes(b"pickled")
    with pytest.raises(
        CheckpointError, match=r"pickled weights are never opened; `mmalign convert .*lora\.pt .*rewrites"
    ):
        begin("sd", None, str(tmp_path / "lora.pt"))
    with pytest.raises(ConfigError, match=r"start_lora: 0\.weight: |weight: 0 adds nothing"):
        begin("sd", saved("sd"), [{"path": "x", "weight": 0.0}])
    bare = tmp_path / "adapter_model.safetensors"
    save_file({f"base_model.model.x.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}, bare)
    with pytest.raises(
        CheckpointError, match=r"do not belong to the unet of StableDiffusionPipeline: base_model\.model"
    ):
        begin("sd", None, str(bare))


def test_another_rank_than_the_options_is_told(begin: Make, saved: Any) -> None:
    with (
        pytest.warns(
            MmalignWarning, match=r"lora\.rank: 8, but .*lora\.safetensors has 14 layers of rank 2, scale 1, and"
        ),
        pytest.raises(CheckpointError, match=r"no \*\.safetensors weights"),
    ):
        begin("sd3", saved("sd3"), lora={"rank": 8})


def test_a_way_of_beginning_that_changes_the_base_is_refused(begin: Make, saved: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pissa"
    folder.mkdir()
    tensors = {f"base_model.model.{key.partition('.')[2]}": value for key, value in saved("sd3").items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["attn.to_q"],
        "init_lora_weights": "pissa",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"was begun by pissa, which takes a part out of the base's weights"):
        begin("sd3", None, str(folder))


def test_a_hub_id_is_read_from_its_cache(
    begin: Make, saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit, place = "0" * 40, tmp_path / "hub" / "models--me--my-style"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True)
    wider = {key: torch.cat([value, value], 1) if ".lora_A." in key else value for key, value in saved("sd3").items()}
    save_file(wider, place / "snapshots" / commit / "style.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        CheckpointError, match=r"my-style/snapshots/0+/style\.safetensors: 14 of its 14 layers have other"
    ):
        begin("sd3", None, "me/my-style")
    with pytest.raises(CheckpointError, match=r"me/other: not a local folder, and the Hub did not give it"):
        begin("sd3", None, "me/other")
