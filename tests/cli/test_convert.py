"""Pickled weights: data is read, code is refused with the way out, and only `convert` unpickles."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmalign.core.errors import DataError
from mmalign.rewards.models.clap_laion import read_original
from mmalign.rewards.models.head import read_head
from mmalign.rewards.models.pickled import read_pickled, tensors_of

STATE = OrderedDict(
    {
        "module.audio_branch.patch_embed.proj.weight": torch.arange(6.0).reshape(2, 3),
        "module.text_projection.2.weight": torch.ones(2),
    }
)


class Marker:
    """Leaves a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.place,))


@pytest.mark.parametrize("beside", [np.float64(0.731), np.float32(2.5), np.int64(7), np.bool_(True)])
def test_numbers_of_numpy_beside_the_weights_are_data(beside: Any, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": beside, "state_dict": STATE}, tmp_path / "clap.pt")
    assert read_pickled(tmp_path / "clap.pt")["best"] == beside
    found = read_original(tmp_path / "clap.pt")
    assert torch.equal(found["audio_branch.patch_embed.proj.weight"], torch.arange(6.0).reshape(2, 3))


def old_numpy(data: bytes) -> bytes:
    """The same pickle as NumPy 1 writes it, which called its modules otherwise."""
    return data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_either_numpy_and_either_layout_are_read(legacy: bool, tmp_path: Path) -> None:
    torch.save(
        {"best": np.float64(1.5), "state_dict": STATE}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy
    )
    if legacy:
        (tmp_path / "a.pt").write_bytes(old_numpy((tmp_path / "a.pt").read_bytes()))
    assert read_pickled(tmp_path / "a.pt")["best"] == 1.5


def refused(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_original(file)
    return str(caught.value)


def test_what_could_run_code_is_refused_with_the_command_that_converts(tmp_path: Path, call: Any) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "laion.pt", pickle_protocol=4)
    torch.save({"state_dict": STATE, "args": Marker(tmp_path / "ran")}, tmp_path / "code.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    for name in ("laion", "code", "junk", "plain"):
        said = refused(tmp_path / f"{name}.pt")
        assert f"mmalign convert {tmp_path}/{name}.pt {tmp_path}/{name}.safetensors --trust" in said
        assert "\x1b" not in said and "weights_only" not in said and "\n" not in said
    assert not (tmp_path / "ran").exists()


def test_convert_writes_what_the_reward_reads(tmp_path: Path, call: Any) -> None:
    torch.save({"epoch": 3, "state_dict": STATE}, tmp_path / "laion.pt", pickle_protocol=4)
    out = tmp_path / "laion.safetensors"
    code, _, err = call("convert", tmp_path / "laion.pt", out)
    assert code == 2 and "--trust" in err and not out.exists()
    code, said, err = call("convert", tmp_path / "laion.pt", out, "--trust")
    assert code == 0 and said.startswith("2 tensors of") and "left out, no tensors: epoch" in said, err
    assert set(load_file(out)) == set(STATE) and set(read_original(out)) == {key[7:] for key in STATE}
    torch.save({"layers.0.weight": torch.ones(1, 4), "layers.0.bias": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(DataError, match=r"converted once: mmalign convert .*head\.pth .*head\.safetensors"):
        read_head(str(tmp_path / "head.pth"))
    assert call("convert", tmp_path / "head.pth", tmp_path / "head.safetensors")[0] == 0  # plain: no trust is asked for
    assert read_head(str(tmp_path / "head.safetensors")).width == 4


def test_convert_says_what_is_wrong(tmp_path: Path, call: Any) -> None:
    torch.save({"state_dict": STATE, "args": Marker(tmp_path / "ran")}, tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "none.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for given, why in (
        (("code.pt", "code.safetensors"), "could run code"),
        (("list.pt", "x.safetensors"), "no state dict in it, but a list"),
        (("none.pt", "x.safetensors"), "no tensors in it; it holds a"),
        (("gone.pt", "x.safetensors"), "no such file"),
        (("none.pt", "x.bin"), "the result is a .safetensors file"),
        (("junk.pt", "x.safetensors", "--trust"), "cannot be unpickled here"),
    ):
        code, _, err = call("convert", tmp_path / given[0], tmp_path / given[1], *given[2:])
        assert code == 2 and why in err and "Traceback" not in err, err
    assert not (tmp_path / "ran").exists() and not list(tmp_path.glob("*.safetensors"))
    assert tensors_of({"model": {"w": torch.ones(1)}})[0].keys() == {"w"}
