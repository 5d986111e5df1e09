"""From accumulated gradient to new weights: unscale, clip, optimizer, schedule, moving average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mmalign.core.config import Trainer
from mmalign.core.errors import CheckpointError
from mmalign.core.tensor import Tensor
from mmalign.training.optimizers import make_optimizer, share_of_rate

#: Of a float16 loss at the start: PyTorch's own 65,536 loses the first updates until it has been halved often enough.
_SCALE = 4096.0


class Update:
    """The optimizer of one run with its schedule and, if asked, an exponential moving average of the weights.

    Args:
        parameters: those that require a gradient are trained.
        trainer: the run file's options.
        scaled: the gradient is of a loss that `scaler` multiplied, as float16 needs: its smallest number is 6e-8.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], trainer: Trainer, scaled: bool = False) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.trainer = trainer
        self.count = 0  # of updates, those skipped included: the place in the schedule
        self.optimizer = make_optimizer(self.parameters, trainer)
        self._share_of_rate = share_of_rate(trainer)
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, init_scale=_SCALE, enabled=scaled)
        self.average = [p.detach().clone() for p in self.parameters] if trainer.ema else None

    @property
    def lr(self) -> float:
        """The rate of the next update."""
        return self.trainer.lr * self._share_of_rate(self.count)

    def apply(self) -> Tensor:
        """Unscale, clip, step, forget the gradient; returns the gradient's norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        limit = self.trainer.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        if torch.isfinite(norm):  # a non-finite gradient would destroy the weights; it is logged as such instead
            self.scaler.step(self.optimizer)
            self._track_average()
        self.count += 1
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def forget(self) -> None:
        """Drop the accumulated gradient without a step; the schedule moves on."""
        self.count += 1
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside it, the weights are their moving average (if there is one)."""
        if self.average is None:
            yield
            return
        live = [p.detach().clone() for p in self.parameters]
        self._set(self.average)
        try:
            yield
        finally:
            self._set(live)

    def state_dict(self) -> dict[str, Any]:
        """Tensors by flat name, ready for safetensors, and the update count, loss's scale and optimizer's name.

        What an optimizer shares between its parameters (tables of 8-bit numbers) is written for each.
        """
        tensors: dict[str, Tensor] = {}
        written: set[int] = set()
        for i, parameter in enumerate(self.parameters):
            tensors[f"{i}.weight"] = parameter.detach()
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensor = torch.as_tensor(value).detach()
                tensors[f"{i}.{name}"] = tensor.clone() if tensor.data_ptr() in written else tensor
                written.add(tensor.data_ptr())
            if self.average is not None:
                tensors[f"{i}.average"] = self.average[i]
        scale = self.scaler.state_dict()
        return {"tensors": tensors, "count": self.count, "scale": scale, "optimizer": self.trainer.optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore weights, moments and average exactly; an average that was not kept starts from these weights.

        Raises:
            CheckpointError: it is the state of another optimizer.
        """
        if (before := state.get("optimizer") or "adamw") != self.trainer.optimizer:
            raise CheckpointError(
                f"trainer.optimizer: the state is of {before}, which {self.trainer.optimizer} cannot go on from; set "
                f"{before}, or start a new run from the weights."
            )
        self.count = state["count"]
        if state.get("scale") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scale"])
        tensors = state["tensors"]
        for i, parameter in enumerate(self.parameters):
            with torch.no_grad():
                parameter.copy_(tensors[f"{i}.weight"])
            prefix = f"{i}."
            moments = {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix) and name not in (f"{i}.weight", f"{i}.average")
            }
            if moments:
                self.optimizer.state[parameter] = {k: _restored(k, v, parameter) for k, v in moments.items()}
            if self.average is not None:
                average = tensors.get(f"{i}.average", tensors[f"{i}.weight"])
                self.average[i] = average.clone().to(parameter.device)

    def _track_average(self) -> None:
        if self.average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - self.trainer.ema)

    def _set(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)


def _restored(name: str, value: Tensor, parameter: torch.nn.Parameter) -> Tensor | int:
    """An entry of an optimizer's state as it was: a count is an integer, or as torch's AdamW has it, on the CPU."""
    if value.dim() == 0 and not value.is_floating_point():
        return int(value)
    return value.clone() if name == "step" else value.clone().to(parameter.device)
