"""What a run takes, counted from configurations, beside the bytes of tensors that its steps really hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mmalign.adapters.weights.quantized import stored_bytes
from mmalign.cli.main import application
from mmalign.core.config import load
from mmalign.run.build import Parts, examine, training_rows
from mmalign.run.directory import RunDirectory
from mmalign.run.live_bytes import LiveBytes
from mmalign.run.memory import Memory, memory_line, memory_of
from mmalign.run.train import start_session
from mmalign.training.loop import training_loop

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["trainer.steps=2", "trainer.evaluate_every=0", "trainer.preview_every=0"]
PICTURES = [*SMALL, "trainer.prompts_per_step=2"]
CASES = {
    "grpo lora": ("quickstart/image", [*PICTURES, "adapter.train=lora", "trainer.micro_batch_size=4"]),
    "grpo bf16": ("quickstart/image", [*PICTURES, "adapter.train=lora", "adapter.dtype=bf16"]),
    "nft": ("scenes/nft_verifier", PICTURES),
    "r0": ("scenes/r0_clip", [*PICTURES, "trainer.prompts_per_step=8"]),
}


TEXT = """
adapter: {name: causal_lm, model: assets/scenes_rewriter, lora: {rank: 8, alpha: 16}}
policy: {name: tokens, max_new_tokens: 24, temperature: 3.0}
rewards: {short: {name: length, low: 1, high: 40, unit: characters}}
objective: {name: grpo, group_size: 16}
data: {name: prompts, path: PROMPTS}
trainer: {steps: 2, prompts_per_step: 4, lr: 1.0e-3, micro_batch_size: 32}
"""


def measured(parts: Parts, folder: Path) -> int:
    """The most bytes of tensors that two training steps hold, the generator's weights included."""
    parts.prepare(judges=False)
    directory = RunDirectory(folder)
    session, resolved = start_session(parts, directory)
    directory.start(resolved, fresh=True)
    adapter: Any = parts.adapter
    loaded = getattr(adapter, "loaded", None)
    modules = [adapter.module] if loaded is None else loaded.pipeline.components.values()
    weights = sum(stored_bytes(part) for part in modules if isinstance(part, torch.nn.Module))
    if adapter.train == "full":  # the copy of the start
        weights += stored_bytes(adapter.module) if getattr(parts.objective, "beta", 0) else 0
    with LiveBytes() as live:
        training_loop(parts.policy, parts.objective, session)
    return weights + live.peak


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_count_is_near_what_the_steps_hold(case: str, tmp_path: Path) -> None:
    name, changes = CASES[case]
    parts, _ = examine(load(ROOT / "configs" / f"{name}.yaml", changes), ())
    memory = memory_of(parts, training_rows(parts))
    found = measured(parts, tmp_path / "run")
    assert 0.75 <= memory.peak / found <= 1.25, (str(memory), found / 2**20)


def test_the_count_of_a_language_model_is_near(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(
        "".join(f"can you paint {n} red squares and a blue star\n" for n in "abcdefgh")
    )
    file = tmp_path / "run.yaml"
    file.write_text(TEXT.replace("PROMPTS", str(tmp_path / "prompts.txt")))
    parts, _ = examine(load(file), ())
    memory = memory_of(parts, training_rows(parts))
    found = measured(parts, tmp_path / "run")
    assert 0.75 <= memory.peak / found <= 1.25, (str(memory), found / 2**20)


def test_it_is_a_line_of_the_dry_run_and_says_what_it_cannot_count() -> None:
    command = ["train", "quickstart/image", "--dry-run", "--memory"]
    done = CliRunner().invoke(application(), command)
    assert done.exit_code == 0 and "# memory: about " in done.stdout, done.output
    assert "an update of 64 rows × 1 steps at once" in done.stdout and "To lower it: trainer.micro_" in done.stdout
    done = CliRunner().invoke(application(), [*command[:2], "--memory"])
    assert done.exit_code != 0 and "--memory: is counted by --dry-run; give both." in str(done.exception)
    parts, _ = examine(load(ROOT / "configs" / "quickstart/text/captioner.yaml"), ())
    assert "memory: not counted: " in memory_line(parts, training_rows(parts))


def test_fewer_bits_and_frozen_weights_take_less() -> None:
    base = ["adapter.train=lora", *PICTURES]

    def counted(*more: str) -> Memory:
        parts, _ = examine(load(ROOT / "configs" / "quickstart/image.yaml", [*base, *more]), ())
        return memory_of(parts, training_rows(parts))

    plain, four, eight = counted(), counted("adapter.quantize=nf4"), counted("adapter.quantize=int8")
    assert plain.weights > eight.weights > four.weights
    parts, _ = examine(load(ROOT / "configs" / "quickstart/image.yaml", [*base, "adapter.quantize=nf4"]), ())
    parts.load("cpu")
    adapter: Any = parts.adapter
    components = adapter.loaded.pipeline.components.values()
    held = sum(stored_bytes(part) for part in components if isinstance(part, torch.nn.Module))
    assert four.weights == pytest.approx(held, rel=0.05)
    whole = counted("adapter.train=full")
    assert whole.state > 10 * plain.state and counted("trainer.optimizer=adamw8bit").state < plain.state
    assert counted("trainer.micro_batch_size=2").update < plain.update
