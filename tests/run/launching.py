"""Two processes of the command line, started as people do, and a run that takes its time."""

from __future__ import annotations

import sys
from pathlib import Path

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{good: {{name: "tests.run.slow_judge:slow"}}}}
objective: {{name: grpo, group_size: 4, beta: 0.1}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{prompts_per_step: 2, {trainer}}}
evaluation: {{rows: 1}}
"""


def slow_run(folder: Path, model: Path, trainer: str) -> Path:
    """The run file, with its prompts, of a language model that `slow_judge` scores; `trainer` are further options."""
    (folder / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
    (folder / "run.yaml").write_text(RUN.format(model=model, trainer=trainer))
    return folder / "run.yaml"
