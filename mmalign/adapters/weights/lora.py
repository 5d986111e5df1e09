"""Low-rank adapters on a diffusers network, in the form that plain diffusers saves and loads.

LoRA (Hu et al., 2106.09685): W x + (alpha / rank) B A x, with B = 0 at the start, so training starts exactly at the
reference. Attached with peft's `inject_adapter_in_model`: `get_peft_model` renames every key, and the `add_adapter` of
transformers asks for releases of peft that need not exist.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from mmalign.adapters.weights.reference import ReadWriteLock
from mmalign.core.errors import CheckpointError, ConfigError, did_you_mean
from mmalign.core.options import AtLeastOne, Count, Positive, ShareBelowOne
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_safetensors
from mmalign.loading.foreign import Pipeline, PretrainedModel

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"  # diffusers' name for the configuration in the file's header


@dataclass
class LoRA:
    """`rank` ≥ 1; `alpha` the numerator of the scale; `target_modules` name endings, None for the family's own choice,
    "all-linear" for every linear layer of the network (of a language model, of its language part without the head).

    The scale alpha / rank stands in what is saved: in peft's `adapter_config.json`, for diffusers in the header of the
    safetensors file only. A program that reads no such header takes alpha = rank: at the default 64 / 32 it adds half
    of what was learned.

    `dropout` must be 0: sampling, replay and reference compute one thing, so nothing of it may be drawn anew. `seed`
    draws the first matrix.
    """

    rank: AtLeastOne = 32
    alpha: Positive = 64
    target_modules: list[str] | Literal["all-linear"] | None = None
    dropout: ShareBelowOne = 0.0
    seed: Count = 0

    also_called: ClassVar[dict[str, str]] = {
        "r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "targets": "target_modules",
    }

    def __post_init__(self) -> None:
        faults = []
        if self.rank < 1:
            faults.append(f"rank: {self.rank} is not a positive number.")
        if self.dropout != 0:
            faults.append(
                f"dropout: {self.dropout:g}, but what a policy says of one output must be the same each time it is "
                "asked (ratio 1 before the first update); set it to 0, and weight_decay or beta against overfitting."
            )
        if self.target_modules == []:
            faults.append("target_modules: is empty; leave it out for the family's own choice.")
        if faults:
            raise ConfigError(faults)

    def placed(self, usual: Sequence[str]) -> list[str]:
        """Return the name endings of the layers it goes to, of which the family's choice is `usual`."""
        endings = self.target_modules
        return list(usual if endings is None or isinstance(endings, str) else endings)


class LoRAWeights:
    """The trainable LoRA of one network (`component` of a `pipeline` class) and what a checkpoint needs of it."""

    def __init__(
        self, network: PretrainedModel, component: str, pipeline: Pipeline, lora: LoRA, targets: Sequence[str]
    ) -> None:
        self._network, self._component, self._pipeline = network, component, pipeline
        self.lock = ReadWriteLock()
        attach(network, lora, lora.placed(targets))

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the LoRA matrices by their name in the network, float32."""
        return {name: p for name, p in self._network.named_parameters() if ".lora_" in name and p.requires_grad}

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside it the network computes without the LoRA; may be nested. Other threads wait, see `ReadWriteLock`."""
        with self.lock.exclusive() as outermost:
            if outermost:
                enable_adapters(self._network, False)
            try:
                yield
            finally:
                if outermost:
                    enable_adapters(self._network, True)

    def save(self, directory: Path) -> None:
        """Write `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(directory)` reads."""
        from diffusers.training_utils import _collate_lora_metadata

        self._pipeline.save_lora_weights(
            directory,
            **{f"{self._component}_lora_layers": lora_state(self._network)},
            **_collate_lora_metadata({self._component: self._network}),
        )

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote (or any diffusers LoRA of the same shape); raises CheckpointError on any mismatch."""
        from peft import set_peft_model_state_dict

        file = directory / WEIGHTS_FILE
        if not file.exists():
            raise CheckpointError(f"{file}: no such file; a folder written by save() of a LoRA run is needed.")
        check_safetensors(file)
        state = _stripped(file, self._component)
        check_fit(file, state, lora_state(self._network))
        check_scale(file, _saved_scale(file, self._component), self._network)
        set_peft_model_state_dict(self._network, state, adapter_name="default")


def lora_state(network: PretrainedModel) -> dict[str, Tensor]:
    """Return the matrices of the adapter on `network` by the names that peft saves them under."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(network, adapter_name="default")


def attach(network: PretrainedModel, lora: LoRA, targets: list[str], **more: object) -> None:
    """Add a fresh LoRA to the modules whose names end in `targets`, trained in float32; `more` goes to its config."""
    unknown = [
        t for t in targets if not any(name == t or name.endswith(f".{t}") for name, _ in network.named_modules())
    ]
    if unknown:
        linear = sorted(
            {".".join(n.split(".")[-2:]) for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
        )
        raise ConfigError(
            f"lora.target_modules: {', '.join(unknown)} names no module of {type(network).__name__}."
            f"{did_you_mean(unknown[0], linear)} Its linear layers end in: {', '.join(linear)}."
        )
    with loading(), torch.random.fork_rng(devices=[]):
        from peft import LoraConfig, inject_adapter_in_model

        torch.manual_seed(lora.seed)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            init_lora_weights="gaussian",
            target_modules=targets,
            **more,
        )
        inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def enable_adapters(network: torch.nn.Module, enabled: bool) -> None:
    """Let every adapter layer of `network` add its part, or not."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(enabled)


def check_scale(file: Path, saved: float | None, network: PretrainedModel) -> None:
    """Raise CheckpointError where a LoRA's matrices were trained at another scale than `network` adds them at.

    `saved` is None where a file of another program does not say.
    """
    config = network.peft_config["default"]
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    if saved is not None and not math.isclose(saved, scale, rel_tol=1e-6):
        raise CheckpointError(
            f"{file}: was trained with lora.alpha / rank {saved:g} and this run has {scale:g} (alpha "
            f"{config.lora_alpha:g}, rank {config.r}), which would make another model of it; set lora.alpha to "
            f"{saved * config.r:g}."
        )


def _saved_scale(file: Path, component: str) -> float | None:
    """alpha / rank in the metadata that diffusers writes beside the matrices, if it is there."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        metadata = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    alpha, rank = (metadata.get(f"{component}.{name}") for name in ("lora_alpha", "r"))
    root = 0.5 if metadata.get(f"{component}.use_rslora") else 1.0
    return float(alpha) / float(rank) ** root if alpha and rank else None


def _stripped(file: Path, component: str) -> dict[str, Tensor]:
    """The tensors of `file` without the component's prefix; keys of other components are faults."""
    from safetensors.torch import load_file

    state = load_file(file)
    foreign = sorted(key for key in state if not key.startswith(f"{component}."))
    if foreign:
        raise CheckpointError(
            f"{file}: {len(foreign)} of {len(state)} keys do not belong to '{component}', the first is '{foreign[0]}'. "
            "Rewrite it with diffusers: pipe.load_lora_weights(...) and pipe.save_lora_weights(...)."
        )
    return {key.removeprefix(f"{component}."): value for key, value in state.items()}


def check_fit(file: Path, state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless `state` has exactly the keys and shapes of `own`."""
    for what, keys in (
        ("this model does not have", state.keys() - own.keys()),
        ("it lacks", own.keys() - state.keys()),
    ):
        if keys:
            raise CheckpointError(
                f"{file}: {len(keys)} LoRA keys that {what}, the first is '{min(keys)}'. "
                "Use the base model and lora.target_modules it was trained with."
            )
    for key, value in state.items():
        if value.shape != own[key].shape:
            rank = min(value.shape[:2])
            raise CheckpointError(
                f"{file}: '{key}' is {tuple(value.shape)} and this model's is {tuple(own[key].shape)}. "
                f"Set lora.rank to what it was trained with ({rank}?) and use the same base model."
            )
