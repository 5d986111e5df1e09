"""LAION's CLAP for music (lukewys/laion_clap, music_audioset_epoch_15_esc_90.14.pt): how well music fits its text."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.errors import ConfigError
from mmalign.rewards.sound.clap import Clap

__all__ = ["ClapMusic"]

_FILE = "music_audioset_epoch_15_esc_90.14.pt"


@dataclass
class ClapMusic(Clap):
    """Reward `clap` with the weights that LAION recommends for music: HTSAT-base, not fused, 48 kHz.

    They are one file of laion-clap's (github.com/LAION-AI/CLAP, README). Its conversion for transformers
    (laion/larger_clap_music) has a text tower that gives all texts one feature, and is refused. Cosine in [-1, 1].
    The README measures genres by "This audio is a <genre> song.".

        hf download lukewys/laion_clap music_audioset_epoch_15_esc_90.14.pt --local-dir .

    Args:
        checkpoint: that file; or music_speech_audioset_epoch_15_esc_89.98.pt, which heard speech too.
    """

    checkpoint: str = ""

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError(
                f"checkpoint: name the weights, {_FILE} of lukewys/laion_clap: hf download lukewys/laion_clap {_FILE} "
                f"--local-dir .; then checkpoint: {_FILE}."
            )
        super().__post_init__()
