"""MusicLDM (Chen et al., 2308.01546): music by latent diffusion over log-mel spectrograms, told one CLAP embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.loaded import Loaded
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import Dtype, Train, check_counts, not_loaded
from mmalign.adapters.sound import _mel_family
from mmalign.adapters.sound._latent_mels import Mel, mel_heard
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Device, Module
from mmalign.core.types import Modality


@dataclass
class MusicLDM:
    """`LatentAdapter` around `MusicLDMPipeline`; predicts ε or v, as its scheduler says; one channel of sound.

    The pipeline class cannot read prompts with transformers 5 by itself (CLAP answers with an object there): give it
    `prompt_embeds`, which are `encode(...)["class_labels"]`. The adapter does not ask it to.

    Sampling levels are DDIM's for the scheduler's config, whichever scheduler that is; x_0 is never clipped. Sounds are
    not ranked afterwards, as the pipeline does where several are asked for.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora" (saved as peft loads it, for the pipeline knows no LoRA) or "full".
        lora: of the attention projections unless it names others.
        dtype: of frozen parts and of the network's arithmetic (autocast); trained weights, autoencoder and vocoder stay
            float32.
        seconds: length of the sounds; what the U-Net was made for by default. Only the latents it needs are computed.
        mel: how the checkpoint's spectrograms were made, for sounds that are given (DPO, SFT).
        negative_prompt: of guidance; the pipeline's own is the empty text.
        gradient_checkpointing: recompute the network's blocks and the decoder in backward.
        offload_text_encoder: keep it on the CPU while it does not work.
        decode_rows: sounds decoded at once.
        cached_prompts: prompts whose conditions are kept on the CPU.
        revision, variant: of the Hub's files.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    seconds: Positive | None = None
    mel: Mel = field(default_factory=Mel)
    negative_prompt: str = ""
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 4
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "audio"
    name: ClassVar[str] = "music_ldm"
    pipeline_name: ClassVar[str] = "MusicLDMPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    module: Module = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)
    prediction: Prediction = field(default="epsilon", init=False, repr=False, compare=False)  # load() reads which

    heard = staticmethod(mel_heard)
    reference = _loaded.reference
    trainable = _loaded.trainable
    save = _loaded.save
    restore = _loaded.restore
    unconditional = _loaded.unconditional
    guide = _loaded.guide
    decode = _loaded.decode
    latents = _loaded.latents
    _encode_negative = _loaded.encode_negative
    load = _mel_family.load
    encode = _mel_family.encode
    _encode_text = _mel_family.encode_text
    rate = _mel_family.rate
    predict = _mel_family.predict
    schedule = _mel_family.schedule
    level = _mel_family.level

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)


__all__ = ["MusicLDM"]
