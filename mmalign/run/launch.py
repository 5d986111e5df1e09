"""Which ways of running on several devices a run can be started in: one process, or data parallel."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Accelerator

log = logging.getLogger("mmalign")

#: What `accelerate launch` sets for plugins that cut weights or optimizer state into pieces.
SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config (tensor, context or sharded data parallel)",
}
#: What launchers set, in the order in which accelerate looks.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_ADVICE = (
    "its checkpoints hold whole weights and optimizer state, so it runs in one process or data parallel (accelerate's "
    "MULTI_GPU and MULTI_CPU); choose that with `accelerate config`, or launch with --multi_gpu. To save memory train "
    "a LoRA, set adapter.gradient_checkpointing, and lower trainer.micro_batch_size and trainer.steps_per_pass"
)


def check_environment(environment: Mapping[str, str] | None = None) -> None:
    """Raise ConfigError if the launcher asked for a plugin that shards; call it before accelerate is set up.

    A precision of the launcher's is named and left aside: the run file says what computes in which.
    """
    variables = os.environ if environment is None else environment
    if (precision := variables.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        log.warning("launch: mixed_precision %s is not followed; adapter.dtype in the run file decides.", precision)
    named = [name for key, name in SHARDED.items() if variables.get(key, "false").lower() in ("true", "1", "yes")]
    if named:
        raise ConfigError(f"launch: {' and '.join(named)} is configured, which mmalign does not support: {_ADVICE}.")


def check_accelerator(accelerator: Accelerator) -> None:
    """Raise ConfigError unless this accelerator is of one process or plain data parallel, and accumulates nothing."""
    from accelerate import DistributedType

    if (steps := accelerator.gradient_accumulation_steps) != 1:
        raise ConfigError(
            f"launch: gradient_accumulation_steps is {steps}, which is not followed: an update is of one batch, "
            "in parts that fit in memory (trainer.micro_batch_size); remove it, and raise "
            "trainer.prompts_per_step for a larger one."
        )

    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not str(kind.value).startswith("MULTI_"):
        raise ConfigError(f"launch: {kind.value} is configured, which mmalign does not support: {_ADVICE}.")
    expected = (_from_environment(SIZES, 1), _from_environment(RANKS, 0))
    made = (accelerator.num_processes, accelerator.process_index)
    if expected != made:
        raise ConfigError(
            f"launch: the environment speaks of process {expected[1]} of {expected[0]} (WORLD_SIZE, RANK), but "
            f"accelerate made process {made[1]} of {made[0]}: each would train the whole. Start with "
            "`accelerate launch` or `torchrun`, or, for one process, unset WORLD_SIZE and RANK."
        )


def on_cpu() -> bool:
    """Were several processes launched where there is no GPU? accelerate joins those on the CPU only when told so."""
    import torch

    return "LOCAL_RANK" in os.environ and _from_environment(SIZES, 1) > 1 and not torch.accelerator.is_available()


def taking_part(accelerator: Accelerator) -> str:
    """Return how many processes train, and on what."""
    import torch

    number = accelerator.num_processes
    threads = f", {torch.get_num_threads()} threads" if accelerator.device.type == "cpu" else ""
    who = f"{number} processes" if number > 1 else "1 process"
    return f"training in {who} ({accelerator.device.type}{threads}{' each' if number > 1 and threads else ''})"


def is_first() -> bool:
    """Is this the process that writes, of those that a launcher started? Known before they meet."""
    return _from_environment(RANKS, 0) == 0


def share() -> tuple[int, int]:
    """Return which process this is, of how many a launcher started; its own accelerator becomes the current one."""
    import torch

    process, processes = _from_environment(RANKS, 0), _from_environment(SIZES, 1)
    if processes > 1 and torch.accelerator.is_available():
        torch.accelerator.set_device_index(_from_environment(("LOCAL_RANK",), 0) % torch.accelerator.device_count())
    return process, processes


def _from_environment(names: Sequence[str], otherwise: int) -> int:
    """The number that the first of these variables holds."""
    text = next((os.environ[name] for name in names if os.environ.get(name)), str(otherwise))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"launch: {' or '.join(names)} is {text!r} in the environment, which is no number.") from None
