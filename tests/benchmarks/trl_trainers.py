"""TRL's trainers on the same model and data, with every step they make handed to a callback."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from tests.benchmarks import language

#: Equal precision, no logging, no files; AdamW of torch as mmalign has it, no recomputation of layers.
_SAME: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "fp16": False,
    "gradient_checkpointing": False,
    "optim": "adamw_torch",
    "learning_rate": language.LR,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "logging_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


class Steps(TrainerCallback):
    """Calls `before` and `after` around every step: its batch, forward, backward and update."""

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.before, self.after = before, after

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.before()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.after()


def _reward(completions: list[str], **_: Any) -> list[float]:
    return [language.share_of_long_words(text) for text in completions]


def grpo(
    folder: Path,
    prompts: Sequence[str],
    steps: int,
    around: Steps,
    size: language.Size = language.USUAL,
    **options: Any,
) -> None:
    """`steps` GRPO steps: every prompt, completed `size.group` times, one update."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    with tempfile.TemporaryDirectory() as out:
        settings = GRPOConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=len(prompts) * size.group,
            num_generations=size.group,
            max_completion_length=size.length,
            **{**_SAME, **options},
        )
        rows = Dataset.from_dict({"prompt": list(prompts)})
        _train(GRPOTrainer, settings, rows, folder, around, reward_funcs=_reward)


def dpo(folder: Path, pairs: Sequence[tuple[str, str, str]], steps: int, around: Steps) -> None:
    """`steps` DPO steps on given pairs (prompt, chosen, rejected)."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    columns = dict(zip(("prompt", "chosen", "rejected"), map(list, zip(*pairs, strict=True)), strict=True))
    with tempfile.TemporaryDirectory() as out:
        settings = DPOConfig(
            output_dir=out, max_steps=steps, per_device_train_batch_size=len(pairs), max_length=2048, **_SAME
        )
        _train(DPOTrainer, settings, Dataset.from_dict(columns), folder, around)


def _train(kind: Any, settings: Any, data: Any, folder: Path, around: Steps, **more: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainer = kind(
        model=model, args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[around], **more
    )
    trainer.train()
