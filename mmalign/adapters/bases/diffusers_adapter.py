"""Adapters around a diffusers pipeline: how it is opened and placed, and how its network is called.

What a family's own file adds:

| member | what it says |
|---|---|
| `pipeline_name`, `component`, `lora_targets` | the pipeline class, its trained network, the layers a LoRA goes to |
| `absent()`, `optional` | components that are not read, or need not be there |
| `encode_text`, `encode_negative` | how a prompt, and the negative one, becomes a condition |
| `call_network` | how the trained network is called, where it is not with the condition's entries by name |
| `open_outputs` | the shape of its latents, and the autoencoder between them and its outputs |

Bases between this one and a family say some of it: `ImageAdapter` and `SoundAdapter` what outputs are, `FlowLevels`
and `DiffusionLevels` at which noise levels the network works.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float

from mmalign.adapters.bases.conditions import Conditions
from mmalign.adapters.bases.formats import Configs
from mmalign.adapters.bases.pretrained_adapter import (
    PretrainedAdapter,
    Train,
    default_device,
    input_dtype,
    mixed_precision,
    texts_only,
    torch_dtype,
)
from mmalign.adapters.weights.full import FullWeights
from mmalign.adapters.weights.lora import LoRA, LoRAWeights
from mmalign.adapters.weights.peft import PeftWeights
from mmalign.adapters.weights.reference import FrozenWeights, TrainedWeights
from mmalign.adapters.weights.start import lay_whole
from mmalign.core.encoded import EncodedStore, Kept, device_name, digest_of, machine, weights_sample
from mmalign.core.errors import ConfigError
from mmalign.core.files import lasting
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Audio, NoiseLevel, OutputOfKind, Prompt
from mmalign.loading.described import component_config
from mmalign.loading.exclusive import loading
from mmalign.loading.foreign import Pipeline, PretrainedModel
from mmalign.loading.lora_forms import LoRAPlace
from mmalign.loading.lora_state import LoRAState, check_layers
from mmalign.loading.networks import skeleton_of
from mmalign.loading.pipelines import Origin, modules, open_pipeline, over_base
from mmalign.loading.trained import Base, named

#: What the names of components begin with that encode prompts.
ENCODERS = ("text_encoder", "projection_model", "language_model", "duration_embedder")
DECODERS = ("vae", "vocoder")  # from latents to images or sound, in float32
#: Options that change nothing of what encoders make.
NO_MATTER = (
    *("train", "lora", "start_lora", "freeze_start", "quantize", "gradient_checkpointing", "offload_text_encoder"),
    *("cached_prompts", "device", "decode_rows", "rows", "recompute"),
)


@runtime_checkable
class Autoencoder(Protocol):
    """What decodes latents to images or sound, and encodes those as latents."""

    def decode(self, x: Tensor) -> Any:
        """Return images (B, 3, H, W) nominally in [0, 1], or `Audio`; not clamped, with gradient to x."""
        ...

    def latents(self, output: OutputOfKind) -> Tensor:
        """Return the mode of the latents (B, *latent) of images in [0, 1] or of `Audio`, no gradient."""
        ...


@dataclass
class Loaded:
    """A checkpoint in its parts: the pipeline, the conditions of its prompts, and its autoencoder."""

    pipeline: Pipeline
    conditions: Conditions
    autoencoder: Any
    latents_on_disk: Kept | None = None


@dataclass
class DiffusersAdapter(PretrainedAdapter):
    """`LatentAdapter` around a pipeline of diffusers; what decodes works in float32.

    Args:
        train: "lora" (saved as the pipeline loads it, or as peft does where the pipeline knows no LoRA), "full", or
            "frozen" (inside a reward); trained weights are float32.
        lora: of the attention projections unless it names others; without dropout.
        dtype: of frozen parts and of the network's arithmetic (autocast).
        gradient_checkpointing: recompute the network's blocks and the decoder in backward.
        offload_text_encoder: keep it on the CPU while it does not work.
        decode_rows: outputs decoded at once.
        cached_prompts: prompts whose conditions are kept on the CPU.
        variant: of the Hub's files.
    """

    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 8
    variant: str | None = None

    pipeline_name: ClassVar[str]
    component: ClassVar[str] = "transformer"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    optional: ClassVar[tuple[str, ...]] = ()

    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)

    def absent(self) -> tuple[str, ...]:
        """Name the components of the pipeline that are not read from the checkpoint."""
        return ()

    def inspect(self, pipe: Pipeline) -> None:
        """Refuse what this adapter cannot drive of an opened pipeline, and note what its configurations say."""

    @abstractmethod
    def open_outputs(self, pipe: Pipeline) -> Autoencoder:
        """Set `latent_shape`, of one row, and give the autoencoder; ConfigError for outputs it cannot make."""

    def unread(self, network: PretrainedModel) -> list[str]:
        """Give the beginnings of names of layers whose output nothing reads: they get no gradient, and do not train."""
        return []

    @abstractmethod
    def encode_text(self, text: str) -> Condition:
        """Return the condition of one prompt, by name: entries (1, ...) that are as long for any other prompt."""

    @abstractmethod
    def encode_negative(self) -> Condition:
        """Return the condition that guidance leads away from, with the entries that `encode_text` gives."""

    def call_network(self, x: Float[Tensor, " B *latent"], times: Float[Tensor, " B"], condition: Condition) -> Tensor:
        """Return what `module` predicts (B, *latent) for latents in its own precision, inside autocast.

        Conditions enter by their names.
        """
        return self.module(x, times, **condition, return_dict=False)[0]

    @abstractmethod
    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """Return the pipeline's own noise levels, K + 1 of them from noise to data."""

    @abstractmethod
    def level(self, u: Tensor) -> NoiseLevel:
        """Return the training levels at u in (0, 1), the share of the schedule; of the shape of u."""

    def load_parts(self, device: torch.device) -> None:
        """Open the pipeline on the CPU, make its network trainable there, and place all parts."""
        dtypes = dict.fromkeys(DECODERS, torch.float32)
        dtypes |= {"default": torch_dtype(self.dtype), self.component: input_dtype(self.train, self.dtype)}
        pipe = open_pipeline(
            self.pipeline_name,
            self._origin(),
            dtypes,
            absent=self.absent(),
            optional=self.optional,
            fitting=_fitting,
        )
        self.inspect(pipe)
        autoencoder = self.open_outputs(pipe)
        network = self._make_trainable(pipe)
        self.module = self.placed(network, device).eval()  # what a LoRA added included
        if self.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        parts = modules(pipe)
        for part in (parts[name] for name in DECODERS if name in parts):
            channels_last(getattr(part.to(device), "decoder", None))
        encoders = [part for name, part in parts.items() if name.startswith(ENCODERS)]
        conditions = Conditions(
            encode_text=self.encode_text,
            encode_negative=self.encode_negative,
            encoders=encoders,
            device=device,
            offload=self.offload_text_encoder,
            capacity=self.cached_prompts,
        )
        self.loaded = Loaded(pipe, conditions, autoencoder)

    def lora_place(self) -> LoRAPlace:
        """Return the component of the pipeline that trains, with the class that knows its LoRAs."""
        with loading():
            import diffusers

            pipeline = getattr(diffusers, self.pipeline_name)
        return LoRAPlace(self.component, pipeline, component_config(self.model, self.component, self.revision, "kept"))

    def skeleton(self, fetch: bool = False) -> Module | None:
        """Return the network that trains, without weights, by the configuration of its component."""
        config = component_config(self.model, self.component, self.revision, "fetch" if fetch else "kept")
        with loading():
            import diffusers

            kind = getattr(diffusers, str(config.get("_class_name", "")), None)
        return None if kind is None else skeleton_of(lambda: kind.from_config(dict(config)))

    def _make_trainable(self, pipe: Pipeline) -> Any:
        """The pipeline's network, of which `weights` train; on the CPU, so that draws are the same everywhere."""
        network, origin = getattr(pipe, self.component), over_base(self._origin())
        base = Base(
            model=lasting(origin.model),
            component=self.component,
            revision=origin.revision,
            variant=origin.variant,
        )
        model = lasting(named(self.model))
        self.weights = make_trainable(
            self.train, pipe, base, self.lora, self.lora_targets, model, self.start, self.freeze_start
        )
        unread = tuple(self.unread(network))
        for name, parameter in network.named_parameters():
            if name.startswith(unread):  # gets no gradient, for which processes that train together would wait
                parameter.requires_grad_(False)
        if self.train != "frozen" and not self.weights.trainable():
            raise ConfigError(
                f"lora.target_modules: {_listed(self.lora.target_modules)} names only layers whose output nothing "
                "reads; name others."
            )
        return network

    def trained_network(self) -> PretrainedModel:
        """Return the pipeline's component that trains."""
        return getattr(self.loaded.pipeline, self.component)

    def write_model(self, directory: Path) -> None:
        """Write the pipeline as a folder that its class reads, without the components that are not read here."""
        with loading():
            self.loaded.pipeline.save_pretrained(directory, safe_serialization=True)

    def _origin(self) -> Origin:
        return Origin(model=self.model, revision=self.revision, variant=self.variant)

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Return the conditions of B prompts, each entry (B, ...), see the family's `encode_text`; kept once made."""
        return self.loaded.conditions(texts_only(prompts, self.name))

    def unconditional(self, rows: int) -> Condition:
        """Return the negative prompt's condition for `rows` rows, with the entries that `encode` gives."""
        return self.loaded.conditions.unconditional(rows)

    def predict(self, x: Float[Tensor, " B *latent"], times: Float[Tensor, " B"], condition: Condition) -> Tensor:
        """Return what the network predicts at the schedule's `times`, (B, *latent) float32, with gradient."""
        with mixed_precision(x.device, self.dtype):
            return self.call_network(x.to(input_dtype(self.train, self.dtype)), times, condition).float()

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Combine as most pipelines do: u + scale (c - u), classifier-free guidance (Ho & Salimans, 2207.12598)."""
        return unconditional + scale * (conditional - unconditional)

    def decode(self, x: Float[Tensor, " B *latent"]) -> Any:
        """Decode latents to images (B, 3, H, W) nominally in [0, 1] or `Audio`; not clamped, with gradient to x."""
        return self.loaded.autoencoder.decode(x)

    def latents(self, output: Tensor | Audio) -> Float[Tensor, " B *latent"]:
        """Return the mode of the autoencoder's latents for images (B, 3, H, W) in [0, 1] or `Audio`."""
        encode = self.loaded.autoencoder.latents
        kept = self.loaded.latents_on_disk
        return encode(output) if kept is None else kept.rows(output, encode).to(self.device)

    def keep_encoded(self, store: EncodedStore, media: bool = True) -> None:
        """From now on, make no condition of a text and no latents of given media that `store` holds."""
        pipe, made_on = self.loaded.pipeline, [*machine(), device_name(default_device(self.device))]
        parts = modules(pipe)
        readers = [part for name, part in parts.items() if name not in (*DECODERS, self.component)]
        options = {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.init and f.name not in NO_MATTER}
        words = {name: digest_of(repr(part), part.get_vocab()) for name, part in tokenizers(pipe).items()}
        texts = digest_of(self.name, options, words, weights_sample(readers), made_on)
        self.loaded.conditions.on_disk = Kept(store, texts)
        if not media:
            return
        ends = self.loaded.autoencoder
        shape = {
            name: repr(value)
            for name, value in vars(ends).items()
            if not isinstance(value, torch.nn.Module) and name not in NO_MATTER
        }
        weights = weights_sample([parts[name] for name in DECODERS if name in parts])
        self.loaded.latents_on_disk = Kept(store, digest_of(type(ends).__name__, shape, weights, made_on))


@dataclass
class NegativeTextAdapter(DiffusersAdapter):
    """A family whose negative prompt is encoded as any prompt is.

    Args:
        negative_prompt: what guidance leads away from; most pipelines' own is the empty text.
    """

    negative_prompt: str = ""

    def encode_negative(self) -> Condition:
        """Encode the negative prompt as any other text."""
        return self.encode_text(self.negative_prompt)


def tokenizers(pipe: Pipeline) -> dict[str, Any]:
    """Return the tokenizers among a pipeline's components, by name."""
    return {name: part for name, part in pipe.components.items() if hasattr(part, "get_vocab")}


def _listed(names: Sequence[str] | str | None) -> str:
    """Names as a sentence has them; a pattern is one."""
    return names if isinstance(names, str) else ", ".join(names or ())


def configs_of(pipe: Pipeline) -> Configs:
    """Return what reads the configurations of a pipeline's components, by a component's name."""

    def config(component: str) -> Mapping[str, Any]:
        return getattr(pipe, component).config

    return config


def _fitting(pipeline: str) -> str:
    """Which adapter drives `pipeline`, read from the adapters themselves."""
    from mmalign.adapters import adapters

    known = {name: adapters.get(name) for name in adapters.names()}
    fits = [
        name for name, kind in known.items() if issubclass(kind, DiffusersAdapter) and kind.pipeline_name == pipeline
    ]
    return f" Use adapter '{fits[0]}'." if fits else ""


def make_trainable(
    train: Train,
    pipe: Pipeline,
    base: Base,
    lora: LoRA,
    targets: Sequence[str],
    model: str = "",
    start: LoRAState | None = None,
    freeze_start: bool = False,
) -> TrainedWeights:
    """Make a component of `pipe` trainable (call it before moving to a device: draws are then the same everywhere).

    `base` names it, and what else there is, `model` what a LoRA is added to, `start` a LoRA to begin with. A LoRA is
    saved as diffusers loads it, or as peft does where the pipeline class has no loader of its own.
    """
    network = getattr(pipe, base.component)
    if start is not None:
        check_layers(start, network)
    if train != "lora" and start is not None:
        lay_whole(network, start, merged=train == "full")
    if train == "frozen":
        return FrozenWeights()
    if train == "full":
        return FullWeights(network, base)
    if lora.target_modules == "all-linear":
        targets = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)]
    if not hasattr(pipe, "save_lora_weights"):
        return PeftWeights(network, lora, targets, start=start, freeze_start=freeze_start, base=model or base.model)
    return LoRAWeights(network, base.component, type(pipe), lora, targets, start, freeze_start)


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, rows: int, recompute: bool = False) -> Tensor:
    """Compute `function(x)` in chunks of `rows` rows; with `recompute`, activations are made again in backward."""
    if recompute and torch.is_grad_enabled() and x.requires_grad:
        parts = [torch.utils.checkpoint.checkpoint(function, chunk, use_reentrant=False) for chunk in x.split(rows)]
    else:
        parts = [function(chunk) for chunk in x.split(rows)]
    return torch.cat(parts).contiguous()  # decoders compute channels-last


def channels_last(module: torch.nn.Module | None) -> None:
    """Let the two-dimensional convolutions of `module` compute in the order of memory that is faster for them."""
    for part in module.modules() if module is not None else ():
        if isinstance(part, torch.nn.Conv2d):
            part.to(memory_format=torch.channels_last)


def device_of_weights(module: torch.nn.Module) -> torch.device:
    """Return the device on which the weights of `module` lie."""
    return next(module.parameters()).device
