"""Files are whole or absent; random streams are independent and restorable."""

from pathlib import Path

import pytest
import torch

from mmalign.core.errors import DataError
from mmalign.core.files import lasting, require_local, write_beside, write_folder_beside
from mmalign.core.rng import Streams, randn, stream


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_beside(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_failed_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with write_folder_beside(path) as beside:
        (beside / "a").write_text("1")
    with pytest.raises(RuntimeError), write_folder_beside(path) as beside:
        (beside / "a").write_text("2")
        raise RuntimeError
    assert (path / "a").read_text() == "1"
    with write_folder_beside(path) as beside:
        (beside / "b").write_text("3")
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_missing_file_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMALIGN_ASSETS", str(tmp_path))
    with pytest.raises(DataError, match=rf"assets/nothing: no such file or folder; looked at .*{tmp_path}"):
        require_local("assets/nothing")
    (tmp_path / "thing").mkdir()
    assert require_local("assets/thing") == tmp_path / "thing"


def test_everywhere_it_looked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    looked = rf"x\.txt: no such file or folder; looked at {tmp_path}/proj/x\.txt, {tmp_path}/x\.txt\.$"
    with pytest.raises(DataError, match=looked):
        require_local("x.txt", Path("proj"))
    with pytest.raises(DataError, match=rf"looked at {tmp_path}/x\.txt\.$"):
        require_local("x.txt", Path())


def test_only_what_the_current_folder_leads_to_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proj").mkdir()
    for name in ("here.txt", "proj/beside.txt"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    proj = Path("proj")
    assert lasting("beside.txt", proj) == "beside.txt"
    assert lasting("here.txt", proj) == lasting("here.txt") == str(tmp_path / "here.txt")
    assert lasting("here.txt", Path()) == "here.txt"  # the run file lies here
    assert lasting("no/such", proj) == "no/such" and lasting(str(tmp_path)) == str(tmp_path)
    (tmp_path / "assets" / "model").mkdir(parents=True)
    assert lasting("assets/model") == str(tmp_path / "assets" / "model")  # not the embedded one
    monkeypatch.setenv("MMALIGN_ASSETS", str(tmp_path / "assets"))
    assert lasting("assets/model") == "assets/model"


def test_streams_are_independent_and_restorable() -> None:
    one, two = Streams(7), Streams(7)
    randn((5,), two["other"])  # drawing from another stream must not shift this one
    assert torch.equal(randn((3,), one["rollout"]), randn((3,), two["rollout"]))
    saved = one.state_dict()
    ahead = randn((4,), one["rollout"])
    two.load_state_dict(saved)
    assert torch.equal(randn((4,), two["rollout"]), ahead)
    assert not torch.equal(randn((3,), Streams(7, rank=1)["rollout"]), randn((3,), Streams(7)["rollout"]))
    assert stream(1, "a").initial_seed() != stream(1, "b").initial_seed()
