"""A tiny T5 that says nothing, to fill the third text encoder's place in a Stable Diffusion 3 pipeline.

``StableDiffusion3Pipeline.from_pretrained`` refuses a folder without a third encoder unless told
``text_encoder_3=None``. This one's last normalisation is zero, so its embeddings are exactly the zeros that diffusers
puts there when it is absent.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import T5EncoderModel, T5Tokenizer

_VOCABULARY = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]


def build_silent_encoder(width: int) -> "tuple[T5EncoderModel, T5Tokenizer]":
    """An encoder whose embeddings ``(B, T, width)`` are all zero, and its tokenizer."""
    import torch
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    config = T5Config(
        vocab_size=len(_VOCABULARY), d_model=width, d_kv=1, d_ff=1, num_layers=1, num_heads=1, decoder_start_token_id=0
    )
    encoder = T5EncoderModel(config)
    torch.nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    # The tokenizer's length is that of diffusers' default prompt, so that nothing is cut off with a warning.
    return encoder, T5Tokenizer(vocab=_VOCABULARY, extra_ids=0, model_max_length=256)
