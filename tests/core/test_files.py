"""Files are whole or absent; random streams are independent and restorable."""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.errors import DataError
from mmalign.core.files import lasting, recover, require_local, write_beside, write_folder_beside
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


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        with write_beside(tmp_path / "file") as beside:
            beside.write_text("x")
        with write_folder_beside(tmp_path / "folder"):
            pass
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_everything_is_on_the_disk_before_a_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operating system is asked for, in order: each fsync with the name that the handle has then."""
    done: list[tuple[str, str]] = []
    fsync, rename, replace, rmtree = os.fsync, os.rename, os.replace, shutil.rmtree

    def noted(kind: str, call: Any) -> Any:
        def instead(path: Any, *more: Any, **options: Any) -> Any:
            named = Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else str(path)
            done.append((kind, re.sub(r"\.[0-9a-f]{8}\.(part|old)", r".\1", str(Path(named).relative_to(tmp_path)))))
            return call(path, *more, **options)

        return instead

    monkeypatch.setattr(os, "fsync", noted("fsync", fsync))
    monkeypatch.setattr(os, "rename", noted("rename", rename))
    monkeypatch.setattr(os, "replace", noted("rename", replace))
    monkeypatch.setattr(shutil, "rmtree", noted("remove", rmtree))
    for text in ("old", "new"):
        done.clear()
        with write_folder_beside(tmp_path / "run") as beside:
            (beside / "deep").mkdir()
            (beside / "deep" / "file").write_text(text)
    new, old = ".run.part", ".run.old"
    synced = [("fsync", f"{new}/deep/file"), ("fsync", f"{new}/deep"), ("fsync", new)]
    swapped = [("rename", "run"), ("rename", new), ("fsync", "."), ("remove", old), ("remove", new)]
    assert done == synced + swapped
    done.clear()
    with write_beside(tmp_path / "x") as beside:
        beside.write_text("1")
    assert done == [("fsync", ".x.part"), ("rename", ".x.part"), ("fsync", ".")]


def test_what_a_killed_process_left_is_tidied(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in (
        ".x.txt.0123abcd.part",
        "deep/.y.0123abcd.part/inside/z",
        "deep/.kept.0123abcd.old/a",
        ".mine",
        "x.part",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("1")
    (run / "there").mkdir()
    (run / ".there.89abcdef.old").mkdir()
    assert sorted(recover(run)) == ["kept", "there", "x.txt", "y"]
    assert (run / "deep/kept/a").read_text() == "1"  # it was about to be replaced
    left = sorted(path.relative_to(run).as_posix() for path in run.rglob("*"))
    assert left == [".mine", "deep", "deep/kept", "deep/kept/a", "there", "x.part"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    for write in (write_beside, write_folder_beside):
        with pytest.raises(OSError) as caught, write(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert caught.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


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
