"""Samples in the middle of a run: a sheet or sound files, and a table that pandas reads."""

from pathlib import Path

import pyarrow.parquet
import torch

from mmalign.core.types import Audio, Prompt, Rollout, Scores
from mmalign.evaluation.samples import save_samples
from mmalign.media.audio import read_audio
from mmalign.media.image import read_image

ASKED = [Prompt("a cat"), Prompt("a dog")]
SCORES = {
    "clip": Scores(
        torch.tensor([0.5, torch.nan]), torch.tensor([0, 3], dtype=torch.int8), parts={"raw": torch.tensor([1.0, 2.0])}
    )
}


def test_pictures(tmp_path: Path) -> None:
    save_samples(tmp_path / "s", Rollout(ASKED, torch.rand(2, 3, 8, 8), torch.arange(2)), SCORES)
    table = pyarrow.parquet.read_table(tmp_path / "s" / "rows.parquet").to_pydict()
    assert table == {
        "prompt": ["a cat", "a dog"],
        "group": [0, 1],
        "output": ["contact_sheet.png"] * 2,
        "clip": [0.5, None],
        "clip/status": ["ok", "error"],
        "clip/raw": [1.0, 2.0],
    }
    assert read_image(tmp_path / "s" / "contact_sheet.png").shape[2] > 320


def test_sound_ends_where_its_mask_ends(tmp_path: Path) -> None:
    mask = torch.tensor([[True] * 50, [True] * 20 + [False] * 30])
    save_samples(tmp_path, Rollout(ASKED, Audio(torch.zeros(2, 1, 50), 8_000, mask), torch.arange(2)), {})
    assert [read_audio(tmp_path / f"00{i}.wav")[0].shape[1] for i in range(2)] == [50, 20]
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet")["output"].to_pylist() == ["000.wav", "001.wav"]
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["000.png", "001.png"]


def test_texts(tmp_path: Path) -> None:
    save_samples(tmp_path, Rollout(ASKED, ["miau", "wau"], torch.arange(2)), SCORES)
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet")["output"].to_pylist() == ["miau", "wau"]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]
