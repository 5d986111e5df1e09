"""Kept encodings: by exact content, whole or absent, bounded; a damaged one is made anew."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmalign.core.encoded import EncodedStore, Kept, content_digest, weights_sample
from mmalign.core.types import Audio

BIG = 1 << 30


class Doubling:
    """An encoder that counts its calls."""

    calls = 0

    def __call__(self, row: Tensor | Audio) -> Tensor:
        self.calls += 1
        return 2 * (row if isinstance(row, Tensor) else row.samples)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_row_is_encoded_once_for_every_later_store(tmp_path: Path) -> None:
    encode, pictures = Doubling(), torch.rand(3, 3, 4, 4)
    first = Kept(EncodedStore(BIG, tmp_path), "vae").rows(pictures[[0, 1, 0]], encode)
    assert torch.equal(first, 2 * pictures[[0, 1, 0]]) and encode.calls == 2
    store = EncodedStore(BIG, tmp_path)
    assert torch.equal(Kept(store, "vae").rows(pictures, encode), 2 * pictures)
    assert encode.calls == 3 and (store.hits, store.misses) == (2, 1)
    Kept(store, "another vae").rows(pictures, encode)
    assert encode.calls == 6 and len(files(tmp_path)) == 6


def test_what_differs_in_anything_has_another_name() -> None:
    picture, sound = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 8)
    moved = sound.clone()
    moved[..., -1] += 1e-7
    mask = torch.ones(1, 8, dtype=torch.bool)
    others: list[Tensor | Audio] = [
        picture,
        picture.flip(-1),
        picture.half(),
        picture.reshape(1, 3, 2, 8),
        Audio(sound, 8000),
        Audio(sound, 16000),
        Audio(moved, 8000),
        Audio(sound, 8000, mask),
        Audio(sound, 8000, ~mask),
    ]
    assert len({content_digest(one) for one in others}) == len(others)
    assert content_digest(Audio(sound.clone(), 8000)) == content_digest(Audio(sound, 8000))


def test_weights_are_told_apart_by_their_values() -> None:
    network = nn.Linear(100, 200)
    before = weights_sample([network])
    assert weights_sample([network]) == before
    with torch.no_grad():
        network.weight.mul_(1 + 1e-6)
    assert weights_sample([network]) != before


def test_a_damaged_entry_is_said_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encode, kept, pictures = Doubling(), Kept(EncodedStore(BIG, tmp_path), "vae"), torch.rand(1, 3, 4, 4)
    kept.rows(pictures, encode)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:40])
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        assert torch.equal(kept.rows(pictures, encode), 2 * pictures)
    assert encode.calls == 2 and "is made anew" in caplog.text
    assert torch.equal(kept.rows(pictures, encode), 2 * pictures) and encode.calls == 2


def test_the_least_used_go_first_when_the_limit_is_reached(tmp_path: Path) -> None:
    encode, pictures = Doubling(), torch.rand(12, 3, 16, 16)  # 3 KiB each, and a header
    kept = Kept(EncodedStore(10 * 3200, tmp_path), "vae")
    for at in range(12):
        kept.rows(pictures[at : at + 1], encode)
        for age, file in enumerate(sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(file, (age, age))  # file systems may keep whole seconds
        kept.rows(pictures[:1], encode)  # the first one stays in use
    assert encode.calls == 12
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 10 * 3200
    kept.rows(pictures[1:2], encode)
    assert encode.calls == 13  # the second was the least used


def test_the_limit_is_said_before_and_when_it_is_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = EncodedStore(4 * 3200, tmp_path)
    kept, pictures = Kept(store, "vae"), torch.rand(8, 3, 16, 16)
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        kept.rows(pictures[:2], Doubling())
        assert not caplog.text
        kept.rows(pictures, Doubling())
        kept.rows(torch.rand(1, 3, 64, 64), Doubling())
    used = sum(file.stat().st_size for file in files(tmp_path))
    assert f"{tmp_path} holds {used / 2**30:.3g} GiB in 4 entries, of at most 1.19e-05 GiB; beyond" in store.summary()
    assert caplog.text.count(f"{tmp_path}: reached its limit of 1.19e-05 GiB; ") == 1
    assert caplog.text.count("is larger than the limit of 1.19e-05 GiB") == 1


def test_a_folder_that_takes_nothing_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file")
    encode, kept = Doubling(), Kept(EncodedStore(BIG, tmp_path / "taken"), "vae")
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        kept.rows(torch.rand(3, 3, 4, 4), encode)
    assert encode.calls == 3 and caplog.text.count("nothing more is kept there") == 1
