"""Convolutional encoders of waveforms as functions sound → frames: EnCodec, DAC, and the VAE of a latent generator.

| kind | class | frames are |
|---|---|---|
| encodec | transformers EncodecModel | the encoder's output before quantisation |
| dac | transformers DacModel | the encoder's output before quantisation |
| oobleck | diffusers AutoencoderOobleck (Stable Audio's VAE) | the mode of the latent's distribution |

All are differentiable in the samples and take sounds of any length whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmalign.core.device import fastest
from mmalign.core.errors import DataError
from mmalign.core.files import local_path
from mmalign.core.types import Audio
from mmalign.loading.exclusive import loaded_once, loading
from mmalign.loading.files import read_json
from mmalign.loading.folders import network_folder
from mmalign.loading.networks import open_network
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.frozen import Stamp, beside_digest, move_to_inputs, stamp, weight_files, weights_digest
from mmalign.rewards.models.waves import channelled, filled

Kind = Literal["encodec", "dac", "oobleck"]


@dataclass
class Codec:
    """A frozen encoder: (N, channels, S) at `rate` Hz → (N, D, F), S at least `least`.

    It computes on an accelerator where there is one; frames come back to their inputs' device.
    """

    module: nn.Module
    encode: Callable[[Tensor], Tensor]
    rate: int
    channels: int
    least: int
    fingerprint: str

    def frames(self, audio: Audio) -> list[Float[Tensor, "_ D"]]:
        """The frames of every row, float32, with gradient; none for a row without a finite sound."""
        device = move_to_inputs(self.module, audio.samples.device)
        rows = [self._long_enough(row) for row in channelled(audio.to(device), self.rate, self.channels)]
        by_row: dict[int, Tensor] = {}
        for length in {row.shape[1] for row in rows if row.shape[1]}:
            alike = [i for i, row in enumerate(rows) if row.shape[1] == length]
            frames = self.encode(torch.stack([rows[i] for i in alike])).float().transpose(1, 2)
            by_row |= dict(zip(alike, frames, strict=True))
        for i in set(range(len(rows))) - set(by_row):  # as wide as the others
            with torch.no_grad():
                by_row[i] = self.encode(rows[i].new_zeros(1, self.channels, self.least))[0].T[:0]
        return [by_row[i].to(audio.samples.device) for i in range(len(rows))]

    def _long_enough(self, row: Tensor) -> Tensor:
        if not 0 < row.shape[1] < self.least:
            return row
        return torch.stack([filled(channel, self.least, "pad") for channel in row])


def load_codec(kind: Kind, checkpoint: str) -> Codec:
    """The encoder of a local folder or Hub id, loaded once per process while its files do not change.

    Raises:
        DataError: a missing or incomplete checkpoint, or one of another class.
    """
    return _loaded(kind, checkpoint, stamp(_folder(kind, checkpoint)))


def _folder(kind: Kind, checkpoint: str) -> Path | None:
    """The local folder of the weights: a pipeline's autoencoder lies in its `vae`."""
    folder = local_path(checkpoint)
    return folder / "vae" if folder is not None and kind == "oobleck" and (folder / "vae").is_dir() else folder


@loaded_once(8)
def _loaded(kind: Kind, checkpoint: str, stamp: Stamp) -> Codec:
    folder = _folder(kind, checkpoint)
    with preserve_rng_state():
        module, encode, rate, channels, hop = _READERS[kind](checkpoint, folder)
    module.eval().requires_grad_(False).to(fastest())
    digest = weights_digest(
        f"{kind} {checkpoint}", weight_files(folder), f"{kind}-{rate}-{channels}", beside_digest(folder)
    )
    return Codec(module, encode, rate, channels, 4 * hop, digest)


def _encodec(checkpoint: str, folder: Path | None) -> tuple[Any, Callable[[Tensor], Tensor], int, int, int]:
    model = open_network(network_folder(str(folder or checkpoint)), "EncodecModel")
    config = model.config

    def encode(sound: Tensor) -> Tensor:
        if config.normalize:  # as EncodecModel does: by the loudness of the mix
            sound = sound / (sound.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt() + 1e-8)
        return model.encoder(sound)

    return model, encode, config.sampling_rate, config.audio_channels, prod(config.upsampling_ratios)


def _dac(checkpoint: str, folder: Path | None) -> tuple[Any, Callable[[Tensor], Tensor], int, int, int]:
    model = open_network(network_folder(str(folder or checkpoint)), "DacModel")
    return model, model.encoder, model.config.sampling_rate, 1, prod(model.config.downsampling_ratios)


def _oobleck(checkpoint: str, folder: Path | None) -> tuple[Any, Callable[[Tensor], Tensor], int, int, int]:
    place = folder or network_folder(checkpoint, inside="vae")
    config = read_json(place / "config.json", "an autoencoder's folder has it")
    if (kind := config.get("_class_name")) != "AutoencoderOobleck":
        raise DataError(
            f"{checkpoint}: its autoencoder is {kind}, which does not take waveforms. Name `space` instead of "
            "`checkpoint`, and make the reference through the generator: mmalign reference FOLDER --adapter …."
        )
    with loading():
        from diffusers import AutoencoderOobleck
    vae = open_network(network_folder(str(place)), AutoencoderOobleck)
    hop = prod(vae.config.downsampling_ratios)
    return vae, lambda x: vae.encode(x).latent_dist.mode(), vae.config.sampling_rate, vae.config.audio_channels, hop


_READERS = {"encodec": _encodec, "dac": _dac, "oobleck": _oobleck}
