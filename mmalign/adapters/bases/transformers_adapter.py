"""Adapters around one network of transformers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from mmalign.adapters.bases.pretrained_adapter import PretrainedAdapter
from mmalign.adapters.weights.start import lay_whole
from mmalign.core.tensor import Module, Tensor
from mmalign.loading.described import component_config
from mmalign.loading.exclusive import loading
from mmalign.loading.foreign import ModelConfig, PretrainedModel
from mmalign.loading.lora_state import check_layers
from mmalign.loading.networks import skeleton_of
from mmalign.loading.texts import config_from


@dataclass
class TransformersAdapter(PretrainedAdapter):
    """An adapter whose network runs without dropout.

    Args:
        attention: transformers' attention implementation; None for its own choice.
    """

    attention: str | None = None

    network: PretrainedModel = field(init=False, repr=False, compare=False)  # `module` before a launcher wraps it

    @abstractmethod
    def model_of(self, config: ModelConfig) -> PretrainedModel:
        """Make the model of a configuration, as `load_parts` opens it, with whatever weights."""

    def skeleton(self, fetch: bool = False) -> Module | None:
        """Return the model that a LoRA goes on, without weights, by its configuration."""
        entries = component_config(self.model, "", self.revision, "fetch" if fetch else "kept")
        if not entries:
            return None
        return skeleton_of(lambda: self.model_of(config_from(entries)))

    def beginning(self, model: PretrainedModel) -> dict[str, Any]:
        """Return the arguments of `PeftWeights` about the LoRA to start from, which `model` fits."""
        if self.start is not None:
            check_layers(self.start, model)
        return {"start": self.start, "freeze_start": self.freeze_start}

    def lay_start(self, model: PretrainedModel) -> None:
        """Lay the LoRA to start from on a `model` of which no LoRA trains: merged where all of it does."""
        if self.start is not None:
            check_layers(self.start, model)
            lay_whole(model, self.start, merged=self.train == "full")

    def trained_network(self) -> PretrainedModel:
        """Return the model of transformers."""
        return self.network.model

    def write_model(self, directory: Path) -> None:
        """Write the model with what reads its prompts, for plain transformers."""
        with loading():
            self.network.model.save_pretrained(directory, safe_serialization=True)
        self.write_beside(directory)

    @abstractmethod
    def write_beside(self, directory: Path) -> None:
        """Write what belongs beside a whole model: what reads its prompts."""

    @property
    def is_wrapped(self) -> bool:
        """Whether a launcher has wrapped the module, so that several processes average its gradients."""
        return self.module is not self.network


def accepted(forward: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the arguments that a forward takes."""
    return frozenset(signature(forward).parameters)


@contextmanager
def checkpointed(network: Module) -> Iterator[None]:
    """Let layers recompute what they made in here, if gradient checkpointing was switched on.

    transformers does so only in training mode, in which a layer would also draw its dropout: it is told the mode, and
    computes without it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    recomputing = [layer._gradient_checkpointing_func for layer in layers]
    for layer, recompute in zip(layers, recomputing, strict=True):
        layer.training, layer._gradient_checkpointing_func = True, partial(_undropped, layer, recompute)
    try:
        yield
    finally:
        for layer, recompute in zip(layers, recomputing, strict=True):
            layer.training, layer._gradient_checkpointing_func = False, recompute


def _undropped(layer: Module, recompute: Callable[..., Any], run: Callable[..., Any], *inputs: object) -> Any:
    """`recompute(run, *inputs)`, with the layer out of training mode while it computes, then and in backward."""

    def still(*arguments: object) -> Any:
        mode, layer.training = layer.training, False
        try:
            return run(*arguments)
        finally:
            layer.training = mode

    return recompute(still, *inputs)


def with_towers(value: Tensor, model: PretrainedModel) -> Tensor:
    """Return `value` itself, with every weight of `model` that trains outside its language model in its graph.

    Processes that train together wait for the gradient of every weight that trains. A batch without pictures or sounds
    leaves the tower that reads them out of its graph, and some models never read their tower's last layers: a process
    would end with an error, or wait for ever. Here these weights enter the graph with the factor 0, and get the
    gradient 0.
    """
    if not torch.is_grad_enabled():
        return value
    language = {id(weight) for weight in model.get_decoder().parameters()}
    towers = [p for p in model.parameters() if p.requires_grad and id(p) not in language]
    if not towers:
        return value
    return value + 0.0 * torch.stack([weight.flatten()[0] for weight in towers]).sum().to(value.dtype)
