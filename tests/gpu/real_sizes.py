"""Checkpoints at real model widths with random weights, and the same at toy widths for a machine without a GPU.

| family | network | width | depth here | published depth |
|---|---|---|---|---|
| sd3 | SD3.5 medium's transformer, 2.2 B | 1536 | 24 | 24 |
| sdxl | SDXL's U-Net, 2.6 B | 320 to 1280 | all | all |
| flux | FLUX.1 dev's transformer | 3072 | 4 + 8 | 19 + 38 |
| qwen_image | Qwen-Image's transformer | 3072 | 6 | 60 |
| sana | Sana 1.6 B's transformer | 2240 | 20 | 20 |

Text encoders keep their real output widths and few layers: a training step encodes a prompt once, so they cost nothing.
`TOY` shrinks every width at the place where it is written, so that what runs on a GPU is the code that ran here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.adapters.image.tiny_qwen_image import CORPUS
from tests.adapters.language.tiny_tokens import clip_tokenizer, gemma_tokenizer, qwen_tokenizer, t5_tokenizer


@dataclass(frozen=True)
class Sizes:
    """How large: `pick(real, toy)` is one of the two; networks are made on `device`, in `dtype`."""

    toy: bool = False
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16

    def pick(self, real: Any, toy: Any) -> Any:
        """The value for this size."""
        return toy if self.toy else real

    def network(self, kind: Any, **options: Any) -> Any:
        """A network of random weights, the same ones every time."""
        torch.manual_seed(0)
        with torch.device(self.device):
            return kind(**options).to(self.dtype)


REAL = Sizes()
TOY = Sizes(toy=True, device="cpu", dtype=torch.float32)


def text_encoder(width: int, projected: bool = True) -> Any:
    """A shallow CLIP text encoder of real width."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=max(1, width // 64),
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def autoencoder(sizes: Sizes, channels: int, **scaling: Any) -> Any:
    """The published autoencoders' blocks."""
    from diffusers import AutoencoderKL

    widths = sizes.pick((128, 256, 512, 512), (8, 8, 8, 8))
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=sizes.pick(2, 1),
        norm_num_groups=sizes.pick(32, 4),
        latent_channels=channels,
        sample_size=1024,
        **scaling,
    ).to(sizes.dtype)


def write_sd35_medium(folder: Path, sizes: Sizes = REAL) -> Path:
    """`StableDiffusion3Pipeline` with SD3.5 medium's transformer, without T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    heads, layers = sizes.pick(24, 2), sizes.pick(24, 2)
    one, other = sizes.pick(768, 16), sizes.pick(1280, 32)
    transformer = sizes.network(
        SD3Transformer2DModel,
        sample_size=sizes.pick(128, 8),
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=layers,
        attention_head_dim=sizes.pick(64, 8),
        num_attention_heads=heads,
        joint_attention_dim=sizes.pick(4096, 48),
        caption_projection_dim=heads * sizes.pick(64, 8),
        pooled_projection_dim=one + other,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(layers * 13 // 24)),
        qk_norm="rms_norm",
    )
    scaling = {"scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False, "use_post_quant_conv": False}
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(sizes, 16, **scaling),
        text_encoder=text_encoder(one),
        tokenizer=clip_tokenizer(),
        text_encoder_2=text_encoder(other),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    ).save_pretrained(folder)
    return folder


def write_sdxl(folder: Path, sizes: Sizes = REAL) -> Path:
    """`StableDiffusionXLPipeline` with SDXL's U-Net."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    one, other = sizes.pick(768, 16), sizes.pick(1280, 32)
    unet = sizes.network(
        UNet2DConditionModel,
        sample_size=sizes.pick(128, 8),
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=sizes.pick((320, 640, 1280), (8, 16, 16)),
        transformer_layers_per_block=sizes.pick((1, 2, 10), (1, 1, 1)),
        attention_head_dim=sizes.pick((5, 10, 20), (1, 2, 2)),
        norm_num_groups=sizes.pick(32, 4),
        cross_attention_dim=one + other,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes.pick(256, 8),
        projection_class_embeddings_input_dim=other + 6 * sizes.pick(256, 8),
    )
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    StableDiffusionXLPipeline(
        vae=autoencoder(sizes, 4, scaling_factor=0.13025),
        text_encoder=text_encoder(one, projected=False),
        tokenizer=clip_tokenizer(),
        text_encoder_2=text_encoder(other),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **noise),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def write_flux(folder: Path, sizes: Sizes = REAL) -> Path:
    """`FluxPipeline` with the widths of FLUX.1 dev, guidance-distilled, a shallow T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    t5, wide, pooled = t5_tokenizer(), sizes.pick(4096, 24), sizes.pick(768, 16)
    scaling = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False}
    FluxPipeline(
        transformer=sizes.network(
            FluxTransformer2DModel,
            in_channels=64,
            num_layers=sizes.pick(4, 1),
            num_single_layers=sizes.pick(8, 1),
            attention_head_dim=sizes.pick(128, 16),
            num_attention_heads=sizes.pick(24, 2),
            joint_attention_dim=wide,
            pooled_projection_dim=pooled,
            guidance_embeds=True,
            axes_dims_rope=sizes.pick((16, 56, 56), (4, 6, 6)),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=autoencoder(sizes, 16, **scaling),
        text_encoder=text_encoder(pooled, projected=False),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=wide,
                d_kv=sizes.pick(64, 8),
                d_ff=sizes.pick(10240, 32),
                num_layers=1,
                num_heads=sizes.pick(64, 2),
            )
        ),
        tokenizer_2=t5,
    ).save_pretrained(folder)
    return folder


def write_qwen_image(folder: Path, sizes: Sizes = REAL) -> Path:
    """`QwenImagePipeline` with the widths of Qwen-Image and its autoencoder, a shallow Qwen2.5-VL."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    tokenizer = qwen_tokenizer(CORPUS)
    shift = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    torch.manual_seed(0)
    QwenImagePipeline(
        transformer=sizes.network(
            QwenImageTransformer2DModel,
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=sizes.pick(6, 1),
            attention_head_dim=sizes.pick(128, 16),
            num_attention_heads=sizes.pick(24, 2),
            joint_attention_dim=sizes.pick(3584, 16),
            axes_dims_rope=sizes.pick((16, 56, 56), (4, 6, 6)),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift),
        vae=AutoencoderKLQwenImage(**sizes.pick({}, {"base_dim": 8, "num_res_blocks": 1})).to(sizes.dtype),
        text_encoder=_qwen_encoder(tokenizer, sizes),
        tokenizer=tokenizer,
    ).save_pretrained(folder)
    return folder


def write_sana(folder: Path, sizes: Sizes = REAL) -> Path:
    """`SanaPipeline` with the transformer and autoencoder of Sana 1.6 B, a shallow Gemma 2."""
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    tokenizer, wide = gemma_tokenizer(), sizes.pick(2304, 16)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=wide,
        intermediate_size=4 * wide,
        num_hidden_layers=2,
        num_attention_heads=sizes.pick(8, 2),
        num_key_value_heads=sizes.pick(4, 1),
        head_dim=sizes.pick(256, 8),
    )
    heads, across = sizes.pick(70, 2), sizes.pick(20, 2)
    torch.manual_seed(0)
    SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(gemma),
        vae=AutoencoderDC(**sizes.pick(_deep(), _shallow()), scaling_factor=0.41407).to(sizes.dtype),
        transformer=sizes.network(
            SanaTransformer2DModel,
            in_channels=sizes.pick(32, 4),
            out_channels=sizes.pick(32, 4),
            num_attention_heads=heads,
            attention_head_dim=sizes.pick(32, 8),
            num_layers=sizes.pick(20, 2),
            num_cross_attention_heads=across,
            cross_attention_head_dim=sizes.pick(112, 8),
            cross_attention_dim=heads * sizes.pick(32, 8),
            caption_channels=wide,
            sample_size=32,
            patch_size=1,
            mlp_ratio=2.5,
        ),
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"),
    ).save_pretrained(folder)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {
    "sd3": write_sd35_medium,
    "sdxl": write_sdxl,
    "flux": write_flux,
    "qwen_image": write_qwen_image,
    "sana": write_sana,
}


def _qwen_encoder(tokenizer: Any, sizes: Sizes) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends |= {"pad_token_id": tokenizer.pad_token_id}
    width, sections = sizes.pick(3584, 16), sizes.pick([16, 24, 24], [2, 1, 1])
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": sizes.pick(28, 2),
        "num_key_value_heads": sizes.pick(4, 2),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
    } | ends
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ends))


def _deep() -> dict[str, Any]:
    """The autoencoder of Sana: 32 channels at 1/32 of the side."""
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    widths, scales = (128, 256, 512, 512, 1024, 1024), ((), (), (), (5,), (5,), (5,))
    both = {"block_types": blocks, "block_out_channels": widths, "qkv_multiscales": scales}
    depth = {"encoder_layers_per_block": (2, 2, 2, 3, 3, 3), "decoder_layers_per_block": (3, 3, 3, 3, 3, 3)}
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in both.items()}
    return {"latent_channels": 32, "attention_head_dim": 32} | depth | sides


def _shallow() -> dict[str, Any]:
    """The same with two levels of 8 channels."""
    half = {"block_types": ("ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8)}
    half |= {"layers_per_block": (1, 1), "qkv_multiscales": ((), (5,))}
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in half.items()}
    return {"latent_channels": 4, "attention_head_dim": 4} | sides
