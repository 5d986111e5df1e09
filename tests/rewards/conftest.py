"""Tiny random CLIP checkpoints, written the way real ones are."""

import json
from typing import Any

import pytest
import torch

from tests.rewards.every_reward import make  # noqa: F401 (a fixture)

WORDS = ["a", "red", "blue", "green", "circle", "square", "star", "two", "three", "and", "of", "left", "right", "above"]
SIZE = 32


def _tokenizer(folder):
    """A word-level tokenizer whose end token has the highest number, as CLIP's pooling wants."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS, "<start>", "<end>"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("<start>", "<end>")]
    inner.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    named = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """An open_clip folder: config, safetensors, tokenizer."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    words = _tokenizer(folder)
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 12,
            "vocab_size": words,
            "width": 32,
            "heads": 2,
            "layers": 2,
            "hf_tokenizer_name": "here",
        },
    }
    preprocess = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.3, 0.25, 0.2],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = open_clip.CLIP(
            **{k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
            | {"text_cfg": {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}}
        )
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny_transformers_clip(tmp_path_factory):
    """A transformers CLIPModel folder, as PickScore's."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("transformers_clip")
    words = _tokenizer(folder)
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=shared | {"vocab_size": words, "max_position_embeddings": 12, "eos_token_id": words - 1},
        vision_config=shared | {"image_size": SIZE, "patch_size": 8},
        projection_dim=16,
        logit_scale_init_value=3.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """Six small PNG files of different sizes."""
    from mmalign.media.image import write_image

    folder = tmp_path_factory.mktemp("pictures")
    rng = torch.Generator().manual_seed(3)
    for number in range(6):
        write_image(torch.rand(3, 32, 32 + 4 * number, generator=rng), folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def linear_head(tmp_path_factory):
    """Two linear layers of an aesthetic head, as LAION names them."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    rng = torch.Generator().manual_seed(4)
    shapes = {"layers.0.weight": (8, 16), "layers.0.bias": (8,), "layers.2.weight": (1, 8), "layers.2.bias": (1,)}
    save_file({name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}, path)
    return path


@pytest.fixture(scope="session")
def grammar_head(tmp_path_factory):
    """A grammar head of the paper's shape for the toy text tower, which is 32 wide."""
    from safetensors.torch import save_file

    path, rng = tmp_path_factory.mktemp("grammar") / "head.safetensors", torch.Generator().manual_seed(7)
    shapes = {"0.weight": (16, 32), "2.weight": (2, 16)}
    save_file({name: 0.2 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}, path)
    return path


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory):
    """A transformers ClapModel folder: 4 kHz, windows of one second, 16 bands."""
    return _clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="session")
def tiny_fused_clap(tmp_path_factory):
    """The same with feature fusion, which takes four spectrograms and HTK filters."""
    return _clap(tmp_path_factory.mktemp("fused_clap"), fused=True)


def _clap(folder, fused=False):
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    from tests.rewards.sounds import RATE

    words = _tokenizer(folder)
    audio = {
        "num_mel_bins": 16,
        "spec_size": 64,
        "window_size": 4,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "hidden_size": 32,
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
    }
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ClapConfig(
        audio_config=audio,
        text_config=text | {"vocab_size": words, "max_position_embeddings": 20, "pad_token_id": 0},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = ClapModel(config)
        for weight in model.text_model.parameters():  # else all texts are nearly alike before training
            weight.data *= 10 if weight.ndim == 2 else 1
        model.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        hop_length=40,
        max_length_s=1,
        fft_window_size=256,
        frequency_min=20,
        frequency_max=1900,
        truncation="fusion" if fused else "rand_trunc",
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory):
    """Five sound files of differing rates, lengths and channels."""
    from tests.rewards.sounds import write_tones

    return write_tones(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="session")
def tiny_codecs(tmp_path_factory):
    """EnCodec, DAC and Oobleck folders by encoder name, as their libraries write them."""
    from diffusers import AutoencoderOobleck
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

    from tests.rewards.sounds import RATE

    root = tmp_path_factory.mktemp("codecs")
    with torch.random.fork_rng():
        torch.manual_seed(6)
        encodec = EncodecConfig(
            sampling_rate=RATE, hidden_size=8, num_filters=4, upsampling_ratios=[4, 2], codebook_size=16, normalize=True
        )
        EncodecModel(encodec).save_pretrained(root / "encodec")
        dac = DacConfig(
            sampling_rate=RATE,
            encoder_hidden_size=4,
            decoder_hidden_size=16,
            downsampling_ratios=[2, 4],
            upsampling_ratios=[4, 2],
            n_codebooks=2,
            codebook_size=16,
        )
        DacModel(dac).save_pretrained(root / "dac")
        AutoencoderOobleck(
            encoder_hidden_size=4,
            downsampling_ratios=[2, 4],
            channel_multiples=[1, 2],
            decoder_channels=4,
            decoder_input_channels=6,
            audio_channels=2,
            sampling_rate=RATE,
        ).save_pretrained(root / "pipeline" / "vae")
    return {"encodec": root / "encodec", "dac": root / "dac", "latents": root / "pipeline"}
