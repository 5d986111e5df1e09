"""Run by `torchrun`: the gradient of one minibatch, shared by two processes, against the same minibatch in one.

Prints the largest relative difference over the objectives and splits it tried; checks that both resume, by way of the
folder it is given.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.objectives._anchor import add_reference_point
from mmalign.objectives._goals import Goals
from mmalign.objectives._twins import Twins
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.contrast import Contrast
from mmalign.objectives.dpo import DPO
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.r0 import R0
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from mmalign.rewards import Mix
from mmalign.training import checkpoint
from mmalign.training.loop import accumulate
from mmalign.training.session import Session
from mmalign.training.update import Update
from tests.objectives.featured import scorer, triples
from tests.toys import NearPoint, ToyLatent, prompts
from tests.training.problem import Problem, SomeAlike


def gradient(kind: str, accelerator: Any, rows: int, share: slice) -> torch.Tensor:
    """The averaged gradient of `share` of the rows, accumulated in chunks of `rows`."""
    adapter = ToyLatent()
    policy: Any = FewStep(adapter=adapter, num_inference_steps=2) if kind == "r0" else Flow(adapter=adapter)
    objective: Any = {
        "grpo": GRPO(reward=NearPoint(), group_size=4, beta=0.1),
        "grpo with a process of dead groups": GRPO(reward=SomeAlike(), group_size=4, beta=0.1),
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
    trainer = Trainer(micro_batch_size=rows)
    parameters = list(adapter.module.parameters())
    session = Session(trainer, Update(parameters, trainer), None, Streams(0), accelerator)
    weighted = replace(mine, weight=objective.weigh(mine.mask, session.mean))
    accumulate(policy, objective, weighted, session)
    return torch.cat([p.grad.flatten() for p in parameters])


def gradient_of_tied(kind: str, accelerator: Any, rows: int, share: slice) -> torch.Tensor:
    """The same of objectives whose rows are one another's candidates: of 5 rows a process has 2, the other 3."""
    policy: Any = scorer()
    objective: Any = {
        "contrast": Contrast(temperature=0.3),
        "twins": BradleyTerry(twins=Twins(weight=2.0, dropout=0.4)),
        "goals": BradleyTerry(goals=Goals()),
    }[kind]
    mine = objective.collect(policy, triples(), torch.Generator().manual_seed(0))[share]
    if accelerator is not None:
        policy.adapter.module = accelerator.prepare_model(policy.adapter.module)
    trainer, parameters = Trainer(micro_batch_size=rows), list(policy.module.parameters())
    session = Session(trainer, Update(parameters, trainer), None, Streams(0), accelerator)
    accumulate(policy, objective, mine.with_weight(objective.weigh(mine.mask, session.mean)), session)
    return torch.cat([p.grad.flatten() for p in parameters])


class Recorded:
    """A policy that answers with the rows of one earlier rollout: its noise then does not depend on who asks."""

    def __init__(self, policy: Any, rollout: Any) -> None:
        self.policy, self.rollout = policy, rollout

    def sample(self, texts: Any, rng: torch.Generator) -> Any:
        """The next rows, whatever the prompts."""
        return self.rollout

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


def statistics(kind: str, session: Session, share: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """What all rows decide together ("global" advantages, KTO's anchor): by one process, and by this one's share."""
    adapter = ToyLatent()
    policy: Any = Flow(adapter=adapter)
    if kind == "global":
        objective: Any = GRPO(reward=NearPoint(), group_size=4, std="global")
        whole = objective.collect(policy, prompts(6), torch.Generator().manual_seed(0))
        few = Recorded(policy, whole.rollout[share.start * 12 : share.stop * 12])
        texts = prompts(6)[share.start * 3 : share.stop * 3]
        apart = objective.collect(few, texts, torch.Generator()).advantage
        session.share_statistics(objective)
        mine = objective.collect(few, texts, torch.Generator()).advantage
        assert not torch.allclose(apart, mine, rtol=1e-3), "this share's spread is that of the whole"
        return whole.advantage[share.start * 12 : share.stop * 12], mine
    objective = DPO(reward=NearPoint(), online="all_pairs", group_size=4, loss_type="kto")
    with torch.no_grad():
        pairs = objective.collect(policy, prompts(6), torch.Generator().manual_seed(0))
        for parameter in adapter.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        # As if the policy had come to like its outputs, some more than others: the anchor is not cut off at 0.
        liked = 30 * torch.rand(len(pairs), 1, generator=torch.Generator().manual_seed(2))
        pairs = replace(pairs, ref_chosen=pairs.ref_chosen - liked, ref_rejected=pairs.ref_rejected - liked)
        whole, cut = add_reference_point(policy, pairs, 16), len(pairs) // 3
        part = pairs[:cut] if share.start == 0 else pairs[cut:]
        apart = add_reference_point(policy, part, 16).anchor[0]
        assert not torch.allclose(apart, whole.anchor[0], rtol=1e-3), "both shares have the anchor of the whole"
        return whole.anchor[: len(part)], add_reference_point(policy, part, 16, session.mean).anchor


def numbers(accelerator: Any, share: slice) -> dict[str, float]:
    """What a step of which this process has `share` of the rows records; some rows do not count."""
    adapter = ToyLatent()
    policy = Flow(adapter=adapter)
    reward = Mix({"near": NearPoint(), "far": NearPoint((-1.0, 1.0))})
    objective = GRPO(reward=reward, group_size=4, beta=0.1)
    with torch.no_grad():
        whole = objective.collect(policy, prompts(4), torch.Generator().manual_seed(0))
        for parameter in adapter.module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    reward.metrics()  # of all rows, forgotten
    counted = torch.arange(len(whole)) % 5 != 1
    mine = replace(whole, mask=whole.mask & counted[:, None])[share]
    reward(mine.rollout)
    if accelerator is not None:
        adapter.module = accelerator.prepare_model(adapter.module)
    trainer = Trainer(micro_batch_size=3)
    session = Session(trainer, Update(list(adapter.module.parameters()), trainer), None, Streams(0), accelerator)
    accumulate(policy, objective, replace(mine, weight=objective.weigh(mine.mask, session.mean)), session)
    session.finish_step(objective, mine)
    return {name: value for name, value in session.latest.items() if "time/" not in name and "seconds" not in name}


def same_numbers(accelerator: Any) -> None:
    """One process has 4 of 16 rows, the other 12: means of their means would be wrong."""
    alone = numbers(None, slice(0, 16))
    shared = numbers(accelerator, (slice(0, 4), slice(4, 16))[accelerator.process_index])
    apart = numbers(None, (slice(0, 4), slice(4, 16))[accelerator.process_index])
    assert alone.keys() == shared.keys(), alone.keys() ^ shared.keys()
    assert {"reward/near", "reward/near/std", "kl/reference", "ratio/mean"} & alone.keys(), sorted(alone)
    wrong = {name: (alone[name], shared[name]) for name in alone if abs(alone[name] - shared[name]) > 1e-5}
    assert not wrong, wrong
    assert abs(apart["reward/near"] - alone["reward/near"]) > 1e-3, "the shares do not differ"


def resume(accelerator: Any, folder: Path) -> None:
    """Each process goes on with the noise it would have drawn, not with the main one's."""
    first, second = (Problem(rank=accelerator.process_index, world=2) for _ in range(2))
    for problem in (first, second):
        problem.session.accelerator = accelerator
    torch.randn(3, generator=first.session.streams["rollout"])
    checkpoint.save_checkpoint(folder, first.session, first.adapter)
    accelerator.wait_for_everyone()
    checkpoint.load_checkpoint(checkpoint.latest(folder), second.session)
    wanted, found = (torch.randn(4, generator=p.session.streams["rollout"]) for p in (first, second))
    assert torch.equal(wanted, found), f"process {accelerator.process_index} resumes with {found}, not {wanted}"


def main() -> None:
    """Compare and print."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=1)
    assert accelerator.num_processes == 2
    rank, worst = accelerator.process_index, 0.0
    for kind in ("grpo", "grpo with a process of dead groups", "dpo", "r0"):
        for rows in (0, 1, 3):
            alone = gradient(kind, None, rows, slice(None))
            shared = gradient(kind, accelerator, rows, slice(rank, rank + 1))
            gap = float((shared - alone).norm() / alone.norm())
            worst = max(worst, gap)
            if accelerator.is_main_process:
                print(f"{kind} rows={rows} relative difference {gap:.1e}", flush=True)
    for kind in ("contrast", "twins", "goals"):
        for rows in (0, 2):
            alone = gradient_of_tied(kind, None, rows, slice(None))
            shared = gradient_of_tied(kind, accelerator, rows, (slice(0, 2), slice(2, 5))[rank])
            gap = float((shared - alone).norm() / alone.norm())
            worst = max(worst, gap)
            if accelerator.is_main_process:
                print(f"{kind} rows={rows} relative difference {gap:.1e}", flush=True)
    trainer = Trainer()
    session = Session(trainer, Update([torch.nn.Parameter(torch.zeros(1))], trainer), None, Streams(0), accelerator)
    for kind in ("global", "kto"):
        alone, shared = statistics(kind, session, slice(rank, rank + 1))
        gap = float((shared - alone).norm() / alone.norm())
        worst = max(worst, gap)
        print(f"{kind} of process {rank} relative difference {gap:.1e}", flush=True)
    same_numbers(accelerator)
    resume(accelerator, Path(sys.argv[1]))
    if accelerator.is_main_process:
        print(f"worst {worst:.3e}", flush=True)


if __name__ == "__main__":
    main()
