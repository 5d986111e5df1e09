"""A finished run of a tiny model, opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmalign
from mmalign.run.load import Trained
from tests.cli.conftest import call  # noqa: F401  (fixtures)
from tests.run.conftest import RUN, tiny_model  # noqa: F401


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:  # noqa: F811
    """Its directory."""
    place = tmp_path_factory.mktemp("demo")
    (place / "prompts.txt").write_text("".join(f"a picture of {i} things\n" for i in range(10)))
    (place / "run.yaml").write_text(RUN.format(model=tiny_model, train="lora"))
    mmalign.train(place / "run.yaml", out=place / "tiny")
    return place / "tiny"


@pytest.fixture(scope="session")
def run(finished: Path) -> Trained:
    """The run itself."""
    return mmalign.load_run(finished)
