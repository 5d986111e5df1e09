"""AudioLDM 2 (Liu et al., 2308.05734): sound and music by latent diffusion over log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int

from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import warn_if_cut
from mmalign.adapters.loading.loaded import Loaded
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import Dtype, Train, check_counts, default_device, not_loaded, texts_only
from mmalign.adapters.sound import _mel_family
from mmalign.adapters.sound._latent_mels import Mel, mel_heard
from mmalign.core.errors import CapabilityError
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, Prompt

NEW_STATES = 8  # of the published checkpoints


@dataclass
class AudioLDM2:
    """`LatentAdapter` around `AudioLDM2Pipeline`; predicts ε or v, as its scheduler says; one channel of sound.

    A prompt is CLAP's embedding and T5's states, and eight states that a GPT-2 writes after both. Each prompt is read
    by itself. So is the negative one, which the pipeline first pads to its prompt's length: GPT-2 counts positions
    through padding, so that there the same negative prompt reads differently beside each prompt.

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
        max_sequence_length: T5 tokens read of a prompt; what is over is cut with a warning.
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
    max_sequence_length: AtLeastOne = 128
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 4
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "audio"
    pipeline_name: ClassVar[str] = "AudioLDM2Pipeline"
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
    rate = _mel_family.rate
    predict = _mel_family.predict
    schedule = _mel_family.schedule
    level = _mel_family.level

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts", "max_sequence_length")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError, CapabilityError or ConfigError naming the fault."""
        check_reads_prompts(_mel_family.load_mels(self).text_encoder_2.config, self.model)
        for block in self.module.modules():
            # diffusers 0.42 hands a recomputed block the encoder's mask as that of x; its transformers it calls right.
            if self.gradient_checkpointing and hasattr(block, "attentions"):
                block.gradient_checkpointing = False  # type: ignore[assignment]
        return self

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """GPT-2's `encoder_hidden_states` (B, 8, D), T5's `encoder_hidden_states_1` (B, L, E) and its mask (B, L)."""
        return self.loaded.conditions(texts_only(prompts, "audio_ldm2"))

    def _encode_text(self, text: str) -> Condition:
        pipe, device = self.loaded.pipeline, default_device(self.device)
        clap = _mel_family.clap_text(pipe, text, device, "audio_ldm2")[:, None]
        length = len(pipe.tokenizer_2(text).input_ids)
        warn_if_cut("audio_ldm2", text, length, self.max_sequence_length)
        words = pipe.tokenizer_2([text], max_length=self.max_sequence_length, truncation=True, return_tensors="pt")
        mask = words.attention_mask.to(device)
        states = pipe.text_encoder_2(words.input_ids.to(device), attention_mask=mask)[0]
        joined = pipe.projection_model(clap, states, mask.new_ones(1, 1), mask)
        room = self.max_sequence_length - mask.shape[1]
        return {
            "encoder_hidden_states": written_on(pipe.language_model, joined.hidden_states, joined.attention_mask),
            "encoder_hidden_states_1": torch.nn.functional.pad(states, (0, 0, 0, room)),
            "encoder_attention_mask_1": torch.nn.functional.pad(mask, (0, room)),
        }


def check_reads_prompts(config: Any, model: str) -> None:
    """CapabilityError unless the second text encoder is a T5, as for sound and music."""
    if config.model_type != "t5":
        raise CapabilityError(
            f"{model}: its second encoder is a {config.model_type}, which reads a transcription besides the prompt; "
            "only checkpoints that read prompts with T5 are supported."
        )


def written_on(model: Any, states: Float[Tensor, "B L D"], mask: Int[Tensor, "B L"]) -> Float[Tensor, "B N D"]:
    """The N states that a GPT-2 adds to `states`, each its own last one; N is what its configuration says.

    As the pipeline's `generate_language_model`, which needs a `GPT2LMHeadModel` with transformers 5 while published
    checkpoints hold a `GPT2Model`; this takes both.
    """
    start = states.shape[1]
    configs = (model.config, getattr(model, "generation_config", None))
    count = next((n for c in configs if (n := getattr(c, "max_new_tokens", None))), NEW_STATES)
    for _ in range(count):
        said = model(inputs_embeds=states, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = torch.cat([states, said.hidden_states[-1][:, -1:]], 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return states[:, start:]


__all__ = ["AudioLDM2"]
