"""What a run left is a model to start from: of every family, over its base, tensor by tensor."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters import load_adapter
from mmalign.core.checkpoints import write_done
from mmalign.core.errors import CheckpointError
from mmalign.loading.pipelines import modules
from mmalign.loading.trained import way_to
from tests.loading.writers import WRITERS

SHORT: dict[str, dict[str, Any]] = {
    "stable_audio_3": {"seconds": 0.5}
}  # of the families whose tiny model makes no more


def loaded(name: str, model: Path | str, train: str = "full", **options: Any) -> Any:
    return load_adapter(name, model=str(model), device="cpu", train=train, **SHORT.get(name, {}), **options)


def moved(adapter: Any) -> Any:
    """The adapter, each of its trained weights another one."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(7)
        for weight in adapter.trainable().values():
            weight.add_(0.1 * torch.randn_like(weight))
    return adapter


def left(adapter: Any, run: Path, step: int = 2) -> Path:
    """A run directory with one whole checkpoint of the adapter; returns the checkpoint."""
    place = run / "checkpoints" / f"step_{step:06d}"
    (place / "adapter").mkdir(parents=True)
    (run / "run.yaml").touch()
    adapter.save(place / "adapter")
    write_done(place, step)
    return place


def tensors(adapter: Any) -> dict[str, torch.Tensor]:
    """Every weight and buffer of every network that the adapter loaded."""
    networks = modules(adapter.loaded.pipeline) if hasattr(type(adapter), "pipeline_name") else {"": adapter.network}
    return {f"{part}.{name}": value for part, net in networks.items() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_fully_trained_run_is_a_model_to_start_from(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        base = WRITERS[name](tmp_path / "base")
    started = tensors(loaded(name, base, "frozen"))
    first = moved(loaded(name, base))
    place = left(first, tmp_path / "run")
    wanted = {key: value.clone() for key, value in tensors(first).items()}
    assert any(not torch.equal(wanted[key], started[key]) for key in wanted)  # it moved

    for given in (tmp_path / "run", place, place / "adapter"):
        found = tensors(loaded(name, given, "frozen"))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    second = moved(loaded(name, tmp_path / "run"))
    with second.reference():  # is where this run starts: at the first one's result
        assert all(torch.equal(value, wanted[key]) for key, value in tensors(second).items())

    left(second, tmp_path / "again")  # a third needs the base, and nothing of the first run
    shutil.rmtree(tmp_path / "run")
    third, wanted = tensors(loaded(name, tmp_path / "again", "frozen")), tensors(second)
    assert all(torch.equal(third[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", ["sd", "stable_audio", "musicgen"])  # saved as diffusers' LoRA, as peft's, by itself
def test_a_lora_goes_on_top_of_it(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        base = WRITERS[name](tmp_path / "base")
    place = left(moved(loaded(name, base)), tmp_path / "run")
    adapter = moved(loaded(name, tmp_path / "run", "lora", lora={"rank": 2}))
    adapter.save(tmp_path / "lora")
    fresh = loaded(name, tmp_path / "run", "lora", lora={"rank": 2})
    fresh.restore(tmp_path / "lora")
    wanted = tensors(adapter)
    assert all(torch.equal(value, wanted[key]) for key, value in tensors(fresh).items())
    if name != "sd":  # a loader of peft alone must not take the base for what it was added to
        told = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == str(place / "adapter")


@pytest.mark.parametrize("name", ["sd3", "musicgen"])
def test_a_base_that_moved_is_a_sentence_with_the_file_to_change(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        base = WRITERS[name](tmp_path / "base")
    first = moved(loaded(name, base))
    folder = left(first, tmp_path / "run") / "adapter"
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"adapter/base.json: the base model /.*/base is not there; write as its"):
        loaded(name, tmp_path / "run")
    told = json.loads((folder / "base.json").read_text())
    (folder / "base.json").write_text(json.dumps({**told, "model": str(tmp_path / "elsewhere")}))
    wanted = tensors(first)
    assert all(torch.equal(v, wanted[k]) for k, v in tensors(loaded(name, folder, "frozen")).items())

    (tmp_path / "elsewhere" / ("model_index.json" if name == "sd3" else "config.json")).unlink()
    with pytest.raises(CheckpointError, match=r"base.json: its base model: .*/elsewhere/\w+.json: missing"):
        loaded(name, folder)
    (folder / "base.json").write_text(json.dumps({**told, "model": "owner/no-such-base"}))
    with pytest.raises(CheckpointError, match=r"base.json: its base model: owner/no-such-base: not a local folder"):
        loaded(name, folder)


@pytest.mark.parametrize("name", ["sd3", "musicgen"])
@pytest.mark.parametrize("inside", [True, False])  # the base in the run's own directory, or beside it
def test_a_run_and_its_base_may_be_moved_together(name: str, inside: bool, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    with torch.random.fork_rng():
        base = WRITERS[name](before / "run" / "base" if inside else before / "base")
    first = moved(loaded(name, base))
    left(first, before / "run")
    wanted = tensors(first)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert loaded(name, before / "run")  # nothing to say where all is where it was
    before.rename(after)
    now = after / base.relative_to(before)
    with pytest.warns(UserWarning, match=rf"base.json: the base model is no longer {base}; {now} is taken, which lies"):
        again = loaded(name, after / "run")
    assert all(torch.equal(value, wanted[key]) for key, value in tensors(again).items())
    left(again, after / "next")  # what goes on from there names the base by its new place
    told = json.loads((after / "next" / "checkpoints" / "step_000002" / "adapter" / "base.json").read_text())
    assert told["model"] == str(now)
    now.rename(tmp_path / "away")
    with pytest.raises(
        CheckpointError, match=r"base.json: the base model /.*/base is not there; write as its \"model\""
    ):
        loaded(name, after / "run")


def test_a_base_elsewhere_has_no_relative_way(tmp_path: Path) -> None:
    for place, way in (("runs/base", "../../../../base"), ("runs/one/base", "../../../base"), ("models/base", None)):
        (tmp_path / place).mkdir(parents=True)
        assert (
            way_to(str(tmp_path / place), tmp_path / "runs" / "one" / "checkpoints" / "step_000002" / "adapter") == way
        )
    assert way_to("owner/base", tmp_path) is None and way_to("assets/scenes_sd3", tmp_path) is None


def test_what_base_json_says_is_looked_at(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        base = WRITERS["sd"](tmp_path / "base")
    folder = left(loaded("sd", base), tmp_path / "run") / "adapter"
    file = folder / "base.json"
    file.write_text(json.dumps({"model": "", "component": 3}))
    with pytest.raises(CheckpointError, match=r"base.json: has no usable model and component; copy the folder again"):
        loaded("sd", folder)
    for part in ("vae", "../../../base/vae"):
        file.write_text(json.dumps({"model": str(base), "component": part}))
        with pytest.raises(CheckpointError, match=r"names the component '.*vae', which is no folder beside it"):
            loaded("sd", folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"holds the unet of a pipeline and does not say of which; write \{\"mod"):
        loaded("sd", folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    file.write_text(json.dumps({"model": str(base), "component": "unet"}))
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model.safetensors: truncated or damaged"):
        loaded("sd", folder)


def test_runs_that_hold_no_model_to_start_from_say_the_way(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        base = WRITERS["sd"](tmp_path / "base")
    left(loaded("sd", base, "lora", lora={"rank": 2}), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds a LoRA, not a pipeline; continue its run with --resume, or"):
        loaded("sd", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step_000002" / "done").unlink()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint; .*name another run, or a folder of weights"):
        loaded("sd", tmp_path / "run")
