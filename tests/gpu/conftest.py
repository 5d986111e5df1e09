"""Real-size checkpoints, written once; figures gathered into one report."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Models of earlier tests hold cycles: unless they are collected, they fill the device and its figures."""
    gc.collect()
    torch.cuda.empty_cache()
    yield


@pytest.fixture(scope="session")
def real_size(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's checkpoint, by a name of the `WRITERS` of pictures, sounds and texts."""
    from tests.gpu import real_sizes, real_sounds, real_texts

    writers = real_sizes.WRITERS | real_sounds.WRITERS | real_texts.WRITERS
    root, written = tmp_path_factory.mktemp("real"), {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = writers[name](root / name)
            torch.cuda.empty_cache()
        return written[name]

    return folder


@pytest.fixture(scope="session")
def report() -> Iterator[dict[str, Any]]:
    """Figures by name; written to `tests/gpu/results/<device>.json` when all is done."""
    from mmalign.core.files import write_beside
    from mmalign.run.directory import environment

    figures: dict[str, Any] = {}
    yield figures
    if torch.cuda.is_available() and figures:
        name = torch.cuda.get_device_name().lower().replace(" ", "-")
        with write_beside(Path(__file__).parent / "results" / f"{name}.json") as beside:
            beside.write_text(json.dumps({"environment": environment(), "found": figures}, indent=1) + "\n")
