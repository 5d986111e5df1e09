"""Which ways of running on several devices a run can be started in: one process, or data parallel."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from mmalign.core.errors import ConfigError

log = logging.getLogger("mmalign")

#: What `accelerate launch` sets for plugins that cut weights or optimizer state into pieces.
SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config (tensor, context or sharded data parallel)",
}
_ADVICE = (
    "its checkpoints hold whole weights and optimizer state, so it runs in one process or data parallel (accelerate's "
    "MULTI_GPU and MULTI_CPU); choose that with `accelerate config`, or launch with --multi_gpu. To save memory train "
    "a LoRA, set adapter.gradient_checkpointing, and lower trainer.rows and trainer.spans"
)


def check_environment(environment: Mapping[str, str] | None = None) -> None:
    """Raise ConfigError if the launcher asked for a plugin that shards; call it before accelerate is set up.

    A precision of the launcher's is named and left aside: the run file says what computes in which.
    """
    found = os.environ if environment is None else environment
    if (asked := found.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        log.warning("launch: mixed_precision %s is not followed; adapter.dtype in the run file decides.", asked)
    named = [name for key, name in SHARDED.items() if found.get(key, "false").lower() in ("true", "1", "yes")]
    if named:
        raise ConfigError(f"launch: {' and '.join(named)} is configured, which mmalign does not support: {_ADVICE}.")


def check_accelerator(accelerator: Any) -> None:
    """Raise ConfigError unless this accelerator is of one process or plain data parallel, and accumulates nothing."""
    from accelerate import DistributedType

    if (steps := accelerator.gradient_accumulation_steps) != 1:
        raise ConfigError(
            f"launch: gradient_accumulation_steps is {steps}, which is not followed: an update is of one batch, "
            "in parts that fit in memory (trainer.rows); remove it, and raise trainer.batch for a larger one."
        )

    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not str(kind.value).startswith("MULTI_"):
        raise ConfigError(f"launch: {kind.value} is configured, which mmalign does not support: {_ADVICE}.")


def is_first() -> bool:
    """Is this the process that writes, of those that a launcher started? Known before they meet."""
    return os.environ.get("RANK", "0") == "0"
