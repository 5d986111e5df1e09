"""The optimizers and schedules that `trainer` names, each of a library: torch, transformers, bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmalign.core.config import BITSANDBYTES, Trainer
from mmalign.core.errors import ConfigError, MissingExtra, importable
from mmalign.core.packages import need


def make_optimizer(parameters: Sequence[torch.nn.Parameter], trainer: Trainer) -> torch.optim.Optimizer:
    """Return the optimizer of `trainer.optimizer` over `parameters`.

    Raises:
        ConfigError: muon, where some of them are no matrices; paged_adamw on the CPU.
        MissingExtra: its library is not installed.
    """
    usual: dict[str, Any] = {"lr": trainer.lr, "weight_decay": trainer.weight_decay}
    name = trainer.optimizer
    if name == "adamw":
        return torch.optim.AdamW(parameters, betas=trainer.betas, eps=trainer.eps, **usual)
    if name == "adafactor":
        # Its own schedule is off: the rate is the run's, relative to nothing.
        off = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
        made: torch.optim.Optimizer = need("transformers.optimization").Adafactor(parameters, **off, **usual)
        return made
    if name == "muon":
        others = [tuple(parameter.shape) for parameter in parameters if parameter.dim() != 2]
        if others:
            raise ConfigError(
                f"trainer.optimizer: muon is of matrices, and {len(others)} of {len(parameters)} trained tensors are "
                f"none ({others[0]}); train a LoRA of linear layers, or take another optimizer."
            )
        return torch.optim.Muon(parameters, adjust_lr_fn="match_rms_adamw", **usual)
    if not importable("bitsandbytes"):
        raise MissingExtra(f"trainer.optimizer: {name}", "optimizers")
    if name == "paged_adamw" and any(parameter.device.type == "cpu" for parameter in parameters):
        raise ConfigError(
            "trainer.optimizer: paged_adamw moves its state between a GPU's memory and the machine's, and the weights "
            "are on the CPU; set adamw."
        )
    library = need("bitsandbytes").optim
    more = {} if name == "lion" else {"eps": trainer.eps}
    optimizer: torch.optim.Optimizer = getattr(library, BITSANDBYTES[name])(
        parameters, betas=trainer.betas, **more, **usual
    )
    return optimizer


def share_of_rate(trainer: Trainer) -> Callable[[int], float]:
    """Return what share of `trainer.lr` the update after so many others is made with.

    transformers' schedules start warm-up at 0 and end after the last update; here the first update has a rate, and the
    last one the end's.
    """
    warmup, last = trainer.warmup, trainer.steps * trainer.minibatches - 1
    kind = trainer.schedule or ("constant" if trainer.lr_end == 1 else "cosine")
    if kind == "constant":
        return lambda count: min(1.0, (count + 1) / max(warmup, 1))
    falling = max(last - warmup, 1)
    name, more = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": trainer.lr_end}),
        "linear": ("polynomial", {"lr_end": trainer.lr * trainer.lr_end, "power": 1.0}),
        "wsd": (
            "warmup_stable_decay",
            {"num_decay_steps": max(1, round(trainer.decay * falling)), "min_lr_ratio": trainer.lr_end},
        ),
    }[kind]
    unused = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trainer.lr)  # schedules are made on optimizers
    schedule = need("transformers.optimization").get_scheduler(
        name,
        unused,
        num_warmup_steps=warmup,
        num_training_steps=warmup + falling,
        scheduler_specific_kwargs=more,
    )
    share = schedule.lr_lambdas[0]
    return lambda count: float(share(count + 1 if count < warmup else min(count, warmup + falling)))
