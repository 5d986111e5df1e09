"""One tiny checkpoint of every family, by the name of its adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.adapters import tiny
from tests.adapters.image import tiny_flux, tiny_qwen_image, tiny_sana
from tests.adapters.language import tiny_alm, tiny_lm, tiny_vlm
from tests.adapters.sound import tiny_ace_step, tiny_ldm, tiny_musicgen, tiny_stable_audio, tiny_stable_audio_3

WRITERS: dict[str, Callable[[Path], Path]] = {
    "sd": tiny.write_tiny_sd,
    "sdxl": tiny.write_tiny_sdxl,
    "sd3": tiny.write_tiny_sd3,
    "flux": tiny_flux.write_flux,
    "qwen_image": tiny_qwen_image.write_qwen_image,
    "sana": tiny_sana.write_sana,
    "stable_audio": tiny_stable_audio.write_stable_audio,
    "stable_audio_3": tiny_stable_audio_3.write_stable_audio_3,
    "ace_step": tiny_ace_step.write_ace_step,
    "music_ldm": tiny_ldm.write_music_ldm,
    "audio_ldm": tiny_ldm.write_audio_ldm,
    "audio_ldm2": tiny_ldm.write_audio_ldm2,
    "musicgen": tiny_musicgen.write_musicgen,
    "causal_lm": tiny_lm.write_tiny_lm,
    "image_text": tiny_vlm.write_tiny_vlm,
    "audio_text": tiny_alm.write_tiny_alm,
}
