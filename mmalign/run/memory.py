"""How much memory a run takes on its device, from configurations alone: no weight is read, nothing is computed.

The adapter is loaded without weights, and the forward and backward passes of an update, the decoding and a step of
sampling are run on tensors that have a shape and no storage (torch's fake tensors), with a count of the bytes that
would be alive. The count is that of the real tensors. What it leaves out is said in `Memory.left_out`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmalign.adapters.bases.diffusers_adapter import ENCODERS, DiffusersAdapter
from mmalign.adapters.bases.pretrained_adapter import PretrainedAdapter, torch_dtype
from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.adapters.weights.quantized import BITS, block_layers, stored_bytes
from mmalign.core.errors import CapabilityError, MmalignError
from mmalign.core.protocols import DenoisingPolicy
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Audio
from mmalign.loading.networks import without_weights
from mmalign.loading.pipelines import modules
from mmalign.policies._tokens_density import LOGITS_AT_ONCE
from mmalign.policies.few_step import FewStep
from mmalign.run.build import Parts
from mmalign.run.live_bytes import LiveBytes

#: Bytes of optimizer state for a trained number, by `trainer.optimizer`.
STATE = {"adamw": 8, "adamw8bit": 2, "paged_adamw": 8, "adafactor": 0.1, "muon": 4, "lion": 4}
LOOKED_AT = 256  # prompts whose tokens are counted


@dataclass(frozen=True)
class Memory:
    """Bytes on the device: what rests there, and what each phase adds at its fullest.

    `weights`: frozen ones and the trained ones of all parts of the generator. `state`: the optimizer's, averages and
    the reference's copy. `update`: activations and gradients of one pass. `sampling`: the batch's outputs and the pass
    that makes them, with their decoding. `knobs` lower the fullest phase, the best first.
    """

    weights: int
    state: int
    update: int
    sampling: int
    rows: int
    steps: int

    left_out = "models of rewards, workspaces of the device's libraries"

    @property
    def peak(self) -> int:
        """What the device must hold."""
        return self.weights + self.state + max(self.update, self.sampling)

    @property
    def knobs(self) -> tuple[str, ...]:
        """What to lower, the most useful first."""
        if self.weights + self.state > max(self.update, self.sampling):
            return "adapter.quantize", "adapter.dtype: bf16", "adapter.train: lora", "trainer.optimizer: adamw8bit"
        if self.update >= self.sampling:
            return "trainer.micro_batch_size", "trainer.steps_per_pass: 1", "adapter.gradient_checkpointing: true"
        return "policy.rows", "adapter.decode_rows", "trainer.prompts_per_step"

    def __str__(self) -> str:
        return (
            f"memory: about {_size(self.peak)}: weights {_size(self.weights)}, optimizer and copies "
            f"{_size(self.state)}, an update of {self.rows} rows × {self.steps} steps at once {_size(self.update)}, or "
            f"sampling {_size(self.sampling)}; without {self.left_out}. To lower it: {', '.join(self.knobs)}."
        )


def memory_of(parts: Parts, items: Sequence[Any]) -> Memory:
    """Count what the run of `parts`, which are not loaded, takes on rows as `items` are.

    Raises:
        CapabilityError: the adapter is of a family whose passes are not known here.
        CheckpointError: its model is not on this machine.
    """
    adapter = parts.adapter
    if not isinstance(adapter, DiffusersAdapter | CausalLM):
        raise CapabilityError(
            f"memory: is counted of diffusion generators and language models, not of {parts.file.adapter['name']}."
        )
    passes = _Passes.of(parts)
    hollow = copy.copy(adapter)
    hollow.quantize, hollow.start_lora, hollow.freeze_start = "none", None, False  # read no weights
    with without_weights():
        hollow.load("meta")
    weights = _resident(hollow, adapter)
    trained = sum(p.numel() for p in hollow.trainable().values())
    trainer = parts.file.trainer
    copies = (4 if trainer.ema else 0) + (4 if adapter.train == "full" and _uses_reference(parts) else 0)
    state = round(trained * (STATE[trainer.optimizer] + copies))
    if isinstance(hollow, CausalLM):
        update, sampling = _of_text(hollow, parts, passes, _prompt_tokens(hollow, items))
    else:
        update, sampling = _of_latents(hollow, parts, passes)
    return Memory(weights, state, update, sampling, passes.rows, passes.steps)


@dataclass(frozen=True)
class _Passes:
    """How many rows and policy steps are computed at once, and how many outputs a batch has."""

    rows: int
    steps: int
    total: int
    branches: int

    @classmethod
    def of(cls, parts: Parts) -> _Passes:
        """Those of a run's update."""
        from mmalign.run.train import steps_per_pass_of

        trainer, policy, objective = parts.file.trainer, parts.policy, parts.objective
        total = trainer.prompts_per_step * getattr(objective, "group_size", 1)
        rows = min(trainer.micro_batch_size or total, -(-total // trainer.minibatches))
        denoised = getattr(type(objective), "needs", None) is DenoisingPolicy
        if denoised:
            recorded = getattr(objective, "draws", 1)
        else:
            recorded = getattr(policy, "window_size", 0) or max(1, getattr(policy, "num_inference_steps", 2) - 1)
        guided = getattr(policy, "guidance_scale", 0) > 1 and not denoised
        return cls(rows, min(steps_per_pass_of(parts) or recorded, recorded), total, 2 if guided else 1)


def _uses_reference(parts: Parts) -> bool:
    return any(getattr(parts.objective, name, 0) for name in ("beta", "reference_weight"))


def _resident(hollow: PretrainedAdapter, adapter: PretrainedAdapter) -> int:
    """Bytes of the weights that stay on the device."""
    if not isinstance(hollow, DiffusersAdapter):
        whole = [hollow.module]
    else:
        apart = ENCODERS if hollow.offload_text_encoder else ()
        whole = [part for name, part in modules(hollow.loaded.pipeline).items() if not name.startswith(apart)]
    total = sum(stored_bytes(part) for part in whole)
    if adapter.quantize != "none":
        layers, _ = block_layers(hollow.module)
        numbers = sum(layer.weight.numel() for layer in layers.values())
        total -= round(numbers * (torch_dtype(adapter.dtype).itemsize - BITS[adapter.quantize] / 8))
    return total


def _of_latents(adapter: Any, parts: Parts, passes: _Passes) -> tuple[int, int]:
    """What an update adds, and what sampling with its decoding adds."""
    policy: Any = parts.policy
    device = torch.device("cpu")
    with _fake():
        for part in modules(adapter.loaded.pipeline).values():
            _fill(part)
        adapter.device = adapter.loaded.conditions.device = device
        with torch.no_grad():
            condition = adapter.encode_text("a")

        def predicted(x: Tensor, branches: int) -> Tensor:
            there = {name: value.expand(len(x), *value.shape[1:]) for name, value in condition.items()}
            times = torch.full((len(x),), 500.0)
            made = adapter.predict(x, times, there)
            return made if branches == 1 else made + adapter.predict(x, times, there)

        latents = torch.empty(passes.rows, *adapter.latent_shape)
        with LiveBytes() as updating:
            if isinstance(policy, FewStep):
                loss = _few_steps(policy, adapter, predicted, latents)
            else:
                each = [predicted(latents, passes.branches).square().mean() for _ in range(passes.steps)]
                loss = torch.stack(each).sum()
                del each
            loss.backward()
        del loss
        at_once = min(policy.rows or passes.total, passes.total)
        with LiveBytes() as sampling, torch.no_grad():
            kept = torch.empty(passes.total, passes.steps + 2, *adapter.latent_shape)
            predicted(kept[:at_once, 0], 2 if policy.guidance_scale > 1 else 1)
            output = adapter.decode(kept[:at_once, 0])
            made = _tensor(output).numel() * 4 * (passes.total - at_once) // at_once
    return updating.peak, sampling.peak + made


def _few_steps(policy: FewStep, adapter: Any, predicted: Callable[[Tensor, int], Tensor], x: Tensor) -> Tensor:
    """A loss on the decoded end of a chain of steps, as `rsample` makes it."""
    from torch.utils.checkpoint import checkpoint

    branches = 2 if policy.guidance_scale > 1 else 1
    steps = 1 if policy.random_step else policy.grad_steps or policy.num_inference_steps
    for _ in range(steps):
        step = predicted if not policy.checkpoint else (lambda at, n: checkpoint(predicted, at, n, use_reentrant=False))
        x = x - 0.1 * step(x, branches)
    decoded = checkpoint(adapter.decode, x, use_reentrant=False) if policy.checkpoint else adapter.decode(x)
    return _tensor(decoded).float().mean()


def _of_text(adapter: CausalLM, parts: Parts, passes: _Passes, prompt: int) -> tuple[int, int]:
    """What an update adds, and what sampling adds: the cache of keys and values, and one step's logits."""
    policy: Any = parts.policy
    length = policy.max_new_tokens
    if adapter.share_prompts and not adapter.gradient_checkpointing:  # once for a group
        prompt = -(-prompt // getattr(parts.objective, "group_size", 1))
    with _fake():
        _fill(adapter.network)
        adapter.device = torch.device("cpu")
        ids = torch.zeros(passes.rows, prompt + length, dtype=torch.long)
        with LiveBytes() as updating:
            hidden, _ = adapter.network(input_ids=ids, use_cache=False)
            hidden = hidden[:, prompt - 1 : -1].flatten(0, 1)
            size = min(len(hidden), max(1, LOGITS_AT_ONCE // adapter.vocabulary))
            loss = torch.stack([_sliced(adapter, part) for part in hidden.split(size)]).sum()
            loss.backward()
        del hidden, loss
        at_once = min(policy.rows or passes.total, passes.total)
        with LiveBytes() as sampling, torch.no_grad():
            hidden, cache = adapter.network(
                input_ids=torch.zeros(at_once, prompt + length, dtype=torch.long), use_cache=True
            )
            adapter.logits(hidden[:, -1]).float().softmax(-1)
            del cache
    return updating.peak, sampling.peak


def _prompt_tokens(adapter: CausalLM, items: Sequence[Any]) -> int:
    """The tokens of the longest of the first prompts."""
    count = adapter.reader(fetch=False).length
    return max(count(getattr(items[i], "prompt", items[i])) for i in range(min(LOOKED_AT, len(items))))


def _sliced(adapter: CausalLM, hidden: Tensor) -> Tensor:
    """Log-probs of a slice of positions, whose logits are made again in backward."""
    from torch.utils.checkpoint import checkpoint

    def log_prob(states: Tensor) -> Tensor:
        logits = adapter.logits(states).float()
        return (logits[:, 0] - logits.logsumexp(-1)).sum()

    return checkpoint(log_prob, hidden, use_reentrant=False)


def _fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def _fill(module: Module) -> None:
    """Give every parameter and buffer on "meta" a shape on the CPU; inside `_fake` no number is stored."""
    made: dict[int, Any] = {}  # tied weights stay tied
    for part in module.modules():
        for named in (part._parameters, part._buffers):
            for name, value in named.items():
                if value is None or value.device.type != "meta":
                    continue
                if id(value) not in made:
                    empty = torch.empty(value.shape, dtype=value.dtype)
                    trained = isinstance(value, torch.nn.Parameter)
                    made[id(value)] = torch.nn.Parameter(empty, value.requires_grad) if trained else empty
                named[name] = made[id(value)]


def _tensor(output: Tensor | Audio) -> Tensor:
    return output if isinstance(output, Tensor) else output.samples


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"


def memory_line(parts: Parts, items: Sequence[Any]) -> str:
    """`Memory` as a sentence, or why it is not known."""
    try:
        return str(memory_of(parts, items))
    except MmalignError as error:
        return f"memory: not counted: {error}"


__all__ = ["Memory", "memory_line", "memory_of"]
