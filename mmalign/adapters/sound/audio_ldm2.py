"""AudioLDM 2 (Liu et al., 2308.05734): sound and music by latent diffusion over log-mel spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int

from mmalign.adapters.bases.conditions import warn_if_cut
from mmalign.adapters.bases.pretrained_adapter import default_device
from mmalign.adapters.sound._mel_adapter import MelAdapter, clap_text
from mmalign.core.errors import CapabilityError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor
from mmalign.loading.foreign import ModelConfig, Pipeline, PretrainedModel

NEW_STATES = 8  # of the published checkpoints


@dataclass
class AudioLDM2(MelAdapter):
    """`LatentAdapter` around `AudioLDM2Pipeline`; predicts ε or v, as its scheduler says; one channel of sound.

    A prompt is CLAP's embedding and T5's states, and eight states that a GPT-2 writes after both. Each prompt is read
    by itself. So is the negative one, which the pipeline first pads to its prompt's length: GPT-2 counts positions
    through padding, so that there the same negative prompt reads differently beside each prompt.

    Args:
        max_sequence_length: T5 tokens read of a prompt; what is over is cut with a warning.
    """

    max_sequence_length: AtLeastOne = 128

    pipeline_name: ClassVar[str] = "AudioLDM2Pipeline"

    def inspect(self, pipe: Pipeline) -> None:
        """Refuse checkpoints that read a transcription besides the prompt."""
        super().inspect(pipe)
        check_reads_prompts(pipe.text_encoder_2.config, self.model)

    def load_parts(self, device: torch.device) -> None:
        """Load; of the U-Net only the transformers are recomputed."""
        super().load_parts(device)
        for block in self.module.modules():
            # diffusers 0.42 hands a recomputed block the encoder's mask as that of x; its transformers it calls right.
            if self.gradient_checkpointing and hasattr(block, "attentions"):
                block.gradient_checkpointing = False  # type: ignore[assignment]

    def encode_text(self, text: str) -> Condition:
        """Return GPT-2's `encoder_hidden_states` (1, 8, D), and T5's `encoder_hidden_states_1` with mask (1, L)."""
        pipe, device = self.loaded.pipeline, default_device(self.device)
        clap = clap_text(pipe, text, device, self.name)[:, None]
        length = len(pipe.tokenizer_2(text).input_ids)
        warn_if_cut(self.name, text, length, self.max_sequence_length)
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


def check_reads_prompts(config: ModelConfig, model: str) -> None:
    """Raise CapabilityError unless the second text encoder is a T5, as for sound and music."""
    if config.model_type != "t5":
        raise CapabilityError(
            f"{model}: its second encoder is a {config.model_type}, which reads a transcription besides the prompt; "
            "only checkpoints that read prompts with T5 are supported."
        )


def written_on(
    model: PretrainedModel, states: Float[Tensor, "B L D"], mask: Int[Tensor, "B L"]
) -> Float[Tensor, "B N D"]:
    """Return the N states that a GPT-2 adds to `states`, each its own last one; N is what its configuration says.

    As the pipeline's `generate_language_model`, which needs a `GPT2LMHeadModel` with transformers 5 while published
    checkpoints hold a `GPT2Model`; this takes both.
    """
    start = states.shape[1]
    configs = (model.config, getattr(model, "generation_config", None))
    count = next((n for c in configs if (n := getattr(c, "max_new_tokens", None))), NEW_STATES)
    for _ in range(count):
        output = model(inputs_embeds=states, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = torch.cat([states, output.hidden_states[-1][:, -1:]], 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return states[:, start:]


__all__ = ["AudioLDM2"]
