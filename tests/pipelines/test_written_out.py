"""Part by part is trained what `mmalign.train` trains; a moving average is measured, shown and saved."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mmalign
from mmalign.core.config import load
from mmalign.core.rng import Streams
from mmalign.run.build import Parts, build
from mmalign.run.train import held_out
from mmalign.training.checkpoint import latest
from mmalign.training.session import Session
from mmalign.training.update import Update
from pipelines.text_to_image import Sheets, main

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart" / "image.yaml"
SMALL = (
    *("trainer.steps=2", "trainer.batch=1", "trainer.minibatches=1", "objective.group_size=2", "evaluation.count=3"),
    *("policy={name: flow, num_inference_steps: 2, eval_steps: 2}", "evaluation.judges={}", "adapter.device=cpu"),
    *("trainer.preview_every=0", "trainer.evaluate_every=0"),
)
#: The weights go far, and their average hardly follows.
AVERAGED = (*SMALL, "trainer.lr=1.0e-2", "trainer.ema=0.99")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors under a folder."""
    found = {file.relative_to(folder): load_file(file) for file in folder.rglob("*.safetensors")}
    return {f"{file}:{name}": tensor for file, held in found.items() for name, tensor in held.items()}


@pytest.fixture
def parts() -> Iterator[Parts]:
    built = build(load(CONFIG, AVERAGED))
    built.load()
    yield built


def test_both_ways_measure_and_save_the_average(tmp_path: Path) -> None:
    here = {row.name: (row.before, row.after) for row in main(CONFIG, AVERAGED, tmp_path / "written_out")}
    there = mmalign.train(CONFIG, AVERAGED, out=tmp_path / "run")
    assert {"clip": here["clip"]} == {row.name: (row.before, row.after) for row in there.rows}
    saved = weights(tmp_path / "written_out" / "adapter")
    assert saved and saved.keys() == (kept := weights(latest(there.directory.checkpoints) / "adapter")).keys()
    assert all(torch.equal(saved[name], kept[name]) for name in saved)


def test_a_sheet_shows_the_average(tmp_path: Path, parts: Parts) -> None:
    trainer = parts.file.trainer
    update = Update(list(parts.adapter.trainable().values()), trainer)
    session = Session(trainer=trainer, update_rule=update, batches=(), streams=Streams(0))
    Sheets(prompts := held_out(parts), tmp_path / "before")(session, parts.policy, None)
    with torch.no_grad():
        for parameter in update.parameters:
            parameter.mul_(-1)
    Sheets(prompts, tmp_path / "after")(session, parts.policy, None)
    assert (sheet := Path("step_0000.png")) and (tmp_path / "before" / sheet).is_file()
    assert (tmp_path / "after" / sheet).read_bytes() == (tmp_path / "before" / sheet).read_bytes()
    assert torch.equal(-update.parameters[0], update.average[0])
