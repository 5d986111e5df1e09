"""The name of a checkpoint's weights: of their bytes, read once while the file stays as it is."""

import hashlib
import os
from typing import Any

from mmalign.rewards.models.frozen import weights_digest
from tests.rewards.doubles import noting


def test_weights_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    read: list[Any] = []
    monkeypatch.setattr(hashlib, "file_digest", noting(hashlib.file_digest, read.append))
    first = weights_digest("a name", (file,), "crop")
    assert weights_digest("another name", (file,), "crop") == first != weights_digest("a name", (file,), "pad")
    assert len(read) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert weights_digest("a name", (file,), "crop") != first
    assert len(read) == 2
