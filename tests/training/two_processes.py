"""Run by `torchrun`: the gradient of one minibatch, shared by two processes, against the same minibatch in one.

Prints the largest relative difference over the objectives and splits it tried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator

from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.objectives.dpo import DPO
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.r0 import R0
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from mmalign.training.loop import accumulate
from mmalign.training.session import Session
from mmalign.training.update import Update
from tests.toys import NearPoint, ToyLatent, prompts


def gradient(kind: str, accelerator: Any, rows: int, share: slice) -> torch.Tensor:
    """The averaged gradient of `share` of the rows, accumulated in chunks of `rows`."""
    adapter = ToyLatent()
    policy: Any = FewStep(adapter=adapter, num_inference_steps=2) if kind == "r0" else Flow(adapter=adapter)
    objective: Any = {
        "grpo": GRPO(reward=NearPoint(), group_size=4, beta=0.1),
        "dpo": DPO(reward=NearPoint(), online="best_worst", group_size=4, draws=2),
        "r0": R0(reward=NearPoint(), weight_decay_to_start=0.1),
    }[kind]
    with torch.no_grad():
        whole = objective.collect(policy, prompts(6), torch.Generator().manual_seed(0))
        for parameter in adapter.module.parameters():  # away from the start, where every gradient formula is simplest
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    mine = whole[share] if share.stop is None else whole[share.start * len(whole) // 2 : share.stop * len(whole) // 2]
    if accelerator is not None:
        adapter.module = accelerator.prepare_model(adapter.module)
    trainer = Trainer(rows=rows)
    parameters = list(adapter.module.parameters())
    session = Session(trainer, Update(parameters, trainer), None, Streams(0), accelerator)
    weighted = replace(mine, weight=objective.weigh(mine.mask, session.mean))
    accumulate(policy, objective, weighted, session)
    return torch.cat([p.grad.flatten() for p in parameters])


def main() -> None:
    """Compare and print."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=1)
    assert accelerator.num_processes == 2
    rank, worst = accelerator.process_index, 0.0
    for kind in ("grpo", "dpo", "r0"):
        for rows in (0, 1, 3):
            alone = gradient(kind, None, rows, slice(None))
            shared = gradient(kind, accelerator, rows, slice(rank, rank + 1))
            gap = float((shared - alone).norm() / alone.norm())
            worst = max(worst, gap)
            if accelerator.is_main_process:
                print(f"{kind} rows={rows} relative difference {gap:.1e}", flush=True)
    if accelerator.is_main_process:
        print(f"worst {worst:.3e}", flush=True)


if __name__ == "__main__":
    main()
