"""Low-rank adapters on a diffusers network, in the form that plain diffusers saves and loads.

LoRA (Hu et al., 2106.09685): W x + (alpha / rank) B A x, with B = 0 at the start, so training starts exactly at the
reference. Attached with peft's `inject_adapter_in_model`: `get_peft_model` renames every key, and the `add_adapter` of
transformers asks for releases of peft that need not exist.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from mmalign.adapters.weights.reference import ReadWriteLock, Start
from mmalign.adapters.weights.start import START, check_fit, lay_frozen, lay_on, use_adapters
from mmalign.core.errors import CheckpointError, ConfigError, did_you_mean
from mmalign.core.options import AtLeastOne, Count, Positive, ShareBelowOne
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_safetensors
from mmalign.loading.foreign import Pipeline, PretrainedModel
from mmalign.loading.lora_files import DIFFUSERS_FILE as WEIGHTS_FILE
from mmalign.loading.lora_forms import METADATA
from mmalign.loading.lora_state import DOWN, UP, LoRAState, joined, rank_of, scale_of


@dataclass
class LoRA:
    """`rank` ≥ 1; `alpha` the numerator of the scale; `target_modules` name endings, None for the family's own choice,
    "all-linear" for every linear layer of the network (of a language model, of its language part without the head), any
    other text a pattern that whole names of layers match.

    `rank_pattern` and `alpha_pattern` give layers a rank and an alpha of their own, by the end of a name or a pattern
    of it. `use_rslora` divides alpha by the root of the rank (rsLoRA, 2312.03732); `use_dora` trains the size of each
    output's weights apart from their direction (DoRA, 2402.09353).

    The scale alpha / rank stands in what is saved: in peft's `adapter_config.json`, for diffusers in the header of the
    safetensors file only. A program that reads no such header takes alpha = rank: at the default 64 / 32 it adds half
    of what was learned.

    `dropout` must be 0: sampling, replay and reference compute one thing, so nothing of it may be drawn anew. `seed`
    draws the first matrix.
    """

    rank: AtLeastOne = 32
    alpha: Positive = 64
    target_modules: list[str] | str | None = None
    dropout: ShareBelowOne = 0.0
    seed: Count = 0
    rank_pattern: dict[str, AtLeastOne] = field(default_factory=dict)
    alpha_pattern: dict[str, Positive] = field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False

    also_called: ClassVar[dict[str, str]] = {
        "r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "targets": "target_modules",
        "rslora": "use_rslora",
        "dora": "use_dora",
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
        if self.target_modules is not None and not self.target_modules:
            faults.append("target_modules: is empty; leave it out for the family's own choice.")
        patterns = {"rank_pattern": list(self.rank_pattern), "alpha_pattern": list(self.alpha_pattern)}
        if isinstance(self.target_modules, str):
            patterns["target_modules"] = [self.target_modules]
        for name, pattern in patterns.items():
            faults += [f"{name}: {fault}" for fault in map(_pattern_fault, pattern) if fault]
        if faults:
            raise ConfigError(faults)

    def placed(self, usual: Sequence[str]) -> list[str] | str:
        """Return the name endings of the layers it goes to, of which the family's choice is `usual`, or their pattern.

        "all-linear" is `usual`, which who asks makes all linear layers.
        """
        if self.target_modules is None or self.target_modules == "all-linear":
            return list(usual)
        return self.target_modules

    @property
    def further(self) -> dict[str, Any]:
        """The options that peft's configuration calls the same."""
        return {name: getattr(self, name) for name in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora")}

    def check_patterns(self, layers: Sequence[str]) -> None:
        """Raise ConfigError where a pattern gives a rank or an alpha to none of the `layers` the LoRA is on."""
        patterns = {"rank_pattern": list(self.rank_pattern), "alpha_pattern": list(self.alpha_pattern)}
        faults = [
            f"lora.{name}: {key} is of none of the {len(layers)} layers the LoRA goes to, e.g. {layers[0]}."
            for name, pattern in patterns.items()
            for key in pattern
            if not any(re.match(rf"(.*\.)?({key})$", layer) for layer in layers)  # as peft does
        ]
        if faults:
            raise ConfigError(faults)


def _pattern_fault(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{pattern} is no pattern of names ({error})."
    return ""


class LoRAWeights:
    """The trainable LoRA of one network (`component` of a `pipeline` class) and what a checkpoint needs of it.

    Args:
        network: its base weights are frozen.
        component: its name in the pipeline.
        pipeline: a class of diffusers that loads and saves LoRAs.
        lora: of a fresh LoRA.
        targets: name endings of the layers that a fresh LoRA goes to.
        start: a LoRA to start from; it trains on, and is the reference.
        freeze_start: it stays as it is, a fresh LoRA trains beside it; what is saved is both as one.
    """

    def __init__(
        self,
        network: PretrainedModel,
        component: str,
        pipeline: Pipeline,
        lora: LoRA,
        targets: Sequence[str],
        start: LoRAState | None = None,
        freeze_start: bool = False,
    ) -> None:
        self._network, self._component, self._pipeline = network, component, pipeline
        self._frozen = joined([start], [1.0]) if start is not None and freeze_start else None
        begin(network, lora, lora.placed(targets), start, self._frozen)
        # A fresh LoRA adds nothing: its reference is the network without it. (DoRA's adds what rounding leaves.)
        fresh = (start is None or freeze_start) and not lora.use_dora
        self._start = None if fresh else Start(self.trainable())
        self.lock = ReadWriteLock() if self._start is None else self._start.lock

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the LoRA matrices by their name in the network, float32."""
        return {name: p for name, p in self._network.named_parameters() if ".lora_" in name and p.requires_grad}

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside it the network computes as it started; may be nested. Other threads wait, see `ReadWriteLock`."""
        if self._start is not None:
            with self._start.swapped_in():
                yield
            return
        with self.lock.exclusive() as outermost:
            if outermost:
                self._use_fresh(False)
            try:
                yield
            finally:
                if outermost:
                    self._use_fresh(True)

    def _use_fresh(self, used: bool) -> None:
        if self._frozen is None:
            enable_adapters(self._network, used)
        else:
            use_adapters(self._network, [START, "default"] if used else [START])

    def save(self, directory: Path) -> None:
        """Write `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(directory)` reads."""
        state = whole_lora(self._network, self._frozen)
        write_lora(state, directory, self._component, self._pipeline)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote (or any diffusers LoRA of the same shape); raises CheckpointError on any mismatch."""
        file = directory / WEIGHTS_FILE
        if not file.exists():
            raise CheckpointError(f"{file}: no such file; a folder written by save() of a LoRA run is needed.")
        check_safetensors(file)
        set_lora(self._network, file, _stripped(file, self._component), _saved(file, self._component), self._frozen)


def begin(
    network: PretrainedModel,
    lora: LoRA,
    targets: list[str] | str,
    start: LoRAState | None,
    frozen: LoRAState | None,
    **more: Any,
) -> None:
    """Lay what trains on `network`: the `start`, or a fresh LoRA on `targets`, beside what of the start is `frozen`.

    `more` goes to the configuration of a fresh one.
    """
    if start is not None and frozen is None:
        lay_on(network, start, whole=more.get("modules_to_save") or ())
        return
    attach(network, lora, targets, **more)
    if frozen is not None:
        lay_frozen(network, frozen)


def whole_lora(network: PretrainedModel, frozen: LoRAState | None) -> LoRAState:
    """Return all that is added to `network`: what trains, and the `frozen` start before it, as one LoRA."""
    live = LoRAState("the trained LoRA", lora_state(network), network.peft_config["default"])
    if frozen is None:
        return live
    pairs = {key: value.detach().cpu() for key, value in live.tensors.items() if ".lora_" in key}
    own = LoRAState(live.source, pairs, live.config)
    whole = joined([frozen, own], [1.0, 1.0], {layer: own.scale(layer) for layer in own.layers})
    beside = {key: value for key, value in live.tensors.items() if key not in pairs}  # modules that train whole
    config = whole.config
    for name in ("task_type", "base_model_name_or_path", "modules_to_save"):
        setattr(config, name, getattr(live.config, name))
    return LoRAState(live.source, {**whole.tensors, **beside}, config)


def set_lora(
    network: PretrainedModel,
    file: Path,
    tensors: Mapping[str, Tensor],
    saved: Mapping[str, Any] | None,
    frozen: LoRAState | None,
) -> None:
    """Give what trains on `network` the values in `tensors`, as `whole_lora` made them and `file` had them.

    `saved` is the configuration beside them, None where a file of another program does not say.

    Raises:
        CheckpointError: other keys or shapes, another scale, or another frozen start.
    """
    from peft import set_peft_model_state_dict

    whole = whole_lora(network, frozen)
    check_fit(file, tensors, whole.tensors)
    check_scales(file, saved, whole)
    if frozen is not None:
        tensors = _above(file, tensors, whole, frozen)
    set_peft_model_state_dict(network, dict(tensors), adapter_name="default")


def _above(file: Path, tensors: Mapping[str, Tensor], whole: LoRAState, frozen: LoRAState) -> dict[str, Tensor]:
    """The part of the saved matrices that is above the frozen start, which must be the one that `whole` holds."""
    above = {key: value for key, value in tensors.items() if ".lora_" not in key}
    for layer in whole.layers:
        below = frozen.rank(layer) if layer + DOWN in frozen.tensors else 0
        saved, own = ((each[layer + DOWN], each[layer + UP]) for each in (tensors, whole.tensors))
        if not (torch.equal(saved[0][:below], own[0][:below]) and torch.equal(saved[1][:, :below], own[1][:, :below])):
            raise CheckpointError(
                f"{file}: was trained above another start_lora than {frozen.source}, first seen in {layer}; name the "
                "one it was trained above."
            )
        if below < whole.rank(layer):
            above[layer + DOWN] = saved[0][below:].contiguous()
            above[layer + UP] = saved[1][:, below:].contiguous()
    return above


def write_lora(state: LoRAState, directory: Path, component: str, pipeline: Pipeline) -> None:
    """Write a LoRA in diffusers' form, its configuration in the header of the file."""
    pipeline.save_lora_weights(
        directory,
        **{f"{component}_lora_layers": dict(state.tensors)},
        **{f"{component}_lora_adapter_metadata": state.config.to_dict()},
    )


def lora_state(network: PretrainedModel) -> dict[str, Tensor]:
    """Return the matrices of the adapter on `network` by the names that peft saves them under."""
    from peft import get_peft_model_state_dict

    # Left to itself, peft looks for the base's vocabulary in its folder or on the Hub; nothing here changes that.
    return get_peft_model_state_dict(network, adapter_name="default", save_embedding_layers=False)


def attach(network: PretrainedModel, lora: LoRA, targets: list[str] | str, **more: Any) -> None:
    """Add a fresh LoRA to the modules that `targets` name, trained in float32; `more` goes to its config.

    Raises:
        ConfigError: a target, or a layer with a rank or alpha of its own, that `network` does not have.
    """
    names = [name for name, _ in network.named_modules()]
    if isinstance(targets, str):
        layers = [name for name in names if re.fullmatch(targets, name)]
        unknown = [] if layers else [targets]
    else:
        ends = tuple(f".{target}" for target in targets)
        layers = [name for name in names if name in targets or name.endswith(ends)]
        unknown = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in layers)]
    if unknown:
        linear = sorted(
            {".".join(n.split(".")[-2:]) for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
        )
        raise ConfigError(
            f"lora.target_modules: {', '.join(unknown)} names no module of {type(network).__name__}."
            f"{did_you_mean(unknown[0], linear)} Its linear layers end in: {', '.join(linear)}."
        )
    lora.check_patterns(layers)
    with loading(), torch.random.fork_rng(devices=[]):
        from peft import LoraConfig, inject_adapter_in_model

        torch.manual_seed(lora.seed)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            init_lora_weights="gaussian",
            target_modules=targets,
            **lora.further,
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


def check_scales(file: Path, saved: Mapping[str, Any] | None, own: LoRAState) -> None:
    """Raise CheckpointError where a LoRA's matrices were trained at another scale than a network adds them at.

    `saved` is its configuration; None where a file of another program does not say.
    """
    if saved is None or not saved.get("r") or not saved.get("lora_alpha"):
        return
    for layer in own.layers:
        if layer + DOWN not in own.tensors:
            continue
        before, now, rank = scale_of(saved, layer, rank_of(saved, layer)), own.scale(layer), own.rank(layer)
        if not math.isclose(before, now, rel_tol=1e-6):
            alpha = now * rank
            raise CheckpointError(
                f"{file}: was trained with lora.alpha / rank {before:g} and this run has {now:g} (alpha {alpha:g}, "
                f"rank {rank}) in {layer}, which would make another model of it; set lora.alpha to {before * rank:g}."
            )


def _saved(file: Path, component: str) -> dict[str, Any] | None:
    """The configuration in the metadata that diffusers writes beside the matrices, if it is there."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        metadata = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    return {key.removeprefix(f"{component}."): value for key, value in metadata.items()} or None


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
