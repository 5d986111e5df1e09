"""CLAP checkpoints as two functions, sounds → unit features and texts → unit features, whatever library wrote them.

| written as | `checkpoint` | read with |
|---|---|---|
| transformers (`config.json`, safetensors), local or Hub | folder or `org/name` | transformers' ClapModel |
| laion-clap's original weights (`.pt`, `.safetensors`) | the file | ClapModel, weights renamed; or laion-clap itself |

A sound of any length is cut into fixed windows of the model's length (10 s), the last flush with the end, and its
feature is the mean of the windows' unit features, made a unit again. Both libraries' own front ends crop at random
instead: two calls on one file then disagree (cosines of 0.3 to 0.99). A sound no longer than a window is filled as the
extractor would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.cuts import TextLimit
from mmalign.core.device import fastest
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import local_path
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Audio
from mmalign.loading.exclusive import loaded_once
from mmalign.loading.folders import network_folder, reader_folder
from mmalign.loading.foreign import Tokenizer
from mmalign.loading.networks import open_network
from mmalign.loading.texts import open_config, open_tokenizer, preprocessor_config
from mmalign.media.mel import LogMel
from mmalign.rewards.engine.foreign_code import HoldsModel, LoadedOnUse, preserve_rng_state
from mmalign.rewards.models.clap_laion import as_clap_model, packaged, read_original
from mmalign.rewards.models.frozen import (
    Stamp,
    beside_digest,
    local_or_hub,
    move_to_inputs,
    stamp,
    weight_files,
    weights_digest,
)
from mmalign.rewards.models.texts import KeptTexts, Tokens, whole_length
from mmalign.rewards.models.waves import Fill, encode_windows, means, waves, windows

ClapBackend = Literal["auto", "transformers", "laion"]
_ORIGINAL = (".pt", ".safetensors")
_ROBERTA = "laion/clap-htsat-unfused"  # carries laion-clap's tokenizer and preprocessing
PROBES = (
    "a dog barks twice in the distance",
    "slow solo piano in a minor key",
    "heavy rain falls on a tin roof",
    "a crowd cheers while drums play",
)
_TRAINED_ON = 77  # tokens of a text that laion-clap reads
_COLLAPSED = 0.98  # mean cosine of the probes: collapsed towers measured above .999, sound ones below .6


@dataclass(frozen=True)
class ClapSource:
    """Which checkpoint, read by whom, and the `hop` of windows in seconds (0: windows do not overlap)."""

    checkpoint: str
    backend: ClapBackend = "auto"
    processor: str = ""
    hop: float = 0.0

    def __post_init__(self) -> None:
        if self.hop < 0:
            raise ConfigError(f"hop: {self.hop} seconds; set 0 or more.")
        place = local_or_hub(self.checkpoint)
        if place is not None and place.is_dir() and not (place / "config.json").is_file():
            raise DataError(f"{place}: no config.json in it; not a transformers CLAP checkpoint.")
        if self.original and place is not None and place.suffix not in _ORIGINAL:
            raise DataError(f"{place}: laion-clap's weights are {' or '.join(_ORIGINAL)} files.")
        if self.backend == "laion" and not self.original:
            raise ConfigError("backend: laion reads one file of original weights; name it as checkpoint.")

    @property
    def place(self) -> Path | None:
        """The local file or folder, if it is one."""
        return local_path(self.checkpoint) if self.checkpoint else None

    @property
    def original(self) -> bool:
        """Is it one file of laion-clap's?"""
        return self.place is not None and self.place.is_file()


@dataclass
class ClapTowers:
    """A frozen CLAP; `encode_waves` takes (W, length) mono waves at `rate`, with gradient.

    It computes on an accelerator where there is one; features come back to their inputs' device.
    """

    module: Module
    rate: int
    length: int
    hop: int
    fill: Fill
    encode_waves: Callable[[Tensor], Tensor]
    encode_texts: Callable[[list[str], torch.device], Tensor]
    name: str
    limit: TextLimit
    files: tuple[Path, ...] = ()
    beside: str = ""  # digest of configuration and tokenizer
    mel: LogMel | None = None  # the front end, where it is ours
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._texts = KeptTexts(self.encode_texts, self.limit)

    def windows(self, audio: Audio) -> list[Float[Tensor, "_ D"]]:
        """Unit features of each row's windows, float32; none for a row without a finite sound."""
        device = move_to_inputs(self.module, audio.samples.device)
        pieces = [windows(wave, self.length, self.hop, self.fill) for wave in waves(audio.to(device), self.rate)]
        rows = encode_windows(
            lambda part: torch.nn.functional.normalize(self.encode_waves(part).float(), dim=1), pieces
        )
        return [row.to(audio.samples.device) for row in rows]

    def sounds(self, audio: Audio) -> Float[Tensor, "B D"]:
        """Unit features of rows, float32, with gradient to the samples; NaN for a row without a finite sound."""
        return torch.nn.functional.normalize(means(self.windows(audio)), dim=1)

    def texts(self, texts: Sequence[str], device: torch.device | str | None = None) -> Float[Tensor, "B D"]:
        """Unit features of texts, float32; each distinct text is encoded once."""
        device = self.device if device is None else torch.device(device)
        return self._texts(texts, move_to_inputs(self.module, device)).to(device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    @cached_property
    def fingerprint(self) -> str:
        """Names weights, configuration, tokenizer, front end and windows; the same on every machine."""
        return weights_digest(
            self.name, self.files, f"{self.rate}-{self.length}-{self.hop}-{self.fill}", f"{self.beside} {self.mel}"
        )


def load_clap(source: ClapSource) -> ClapTowers:
    """The towers of `source`, loaded once per process while its files do not change.

    Raises:
        DataError: a missing or incomplete checkpoint, or a text tower that gives every text the same feature.
        MissingExtra: backend laion without laion-clap.
    """
    return _loaded(source, stamp(source.place))


@loaded_once(8)
def _loaded(source: ClapSource, stamp: Stamp) -> ClapTowers:
    with preserve_rng_state():  # building a model draws its initial weights
        towers = _laion(source) if source.backend == "laion" else _transformers(source)
    towers.module.eval().requires_grad_(False).to(fastest())
    return towers


def _transformers(source: ClapSource) -> ClapTowers:
    beside = reader_folder(_beside(source))
    if source.original and source.place is not None:
        model: Any = as_clap_model(read_original(source.place))
    else:
        model = open_network(network_folder(source.checkpoint), "ClapModel")
    model.eval()
    config = preprocessor_config(beside, "feature_extractor")
    fused = bool(model.config.audio_config.enable_fusion)
    mel = mel_of(config, fused)
    tokens = _tokens(source, stamp(source.place))
    length = int(config.get("max_length_s", 10) * mel.rate)

    def encode_waves(part: Tensor) -> Tensor:
        features = mel(part)[:, None]
        if not fused:
            return model.get_audio_features(features).pooler_output
        # A fused model takes four channels; of a sound within one window all are alike and none is "longer".
        longer = torch.zeros(len(part), 1, dtype=torch.bool, device=part.device)
        features = features.expand(-1, 4, -1, -1)
        return model.get_audio_features(features, is_longer=longer).pooler_output

    def encode_texts(texts: list[str], device: torch.device) -> Tensor:
        inputs = {name: value.to(device) for name, value in tokens(texts).items()}
        return model.get_text_features(**inputs).pooler_output

    towers = ClapTowers(
        module=model,
        rate=mel.rate,
        length=length,
        hop=round(source.hop * mel.rate) or length,
        fill=config.get("padding", "repeatpad"),
        encode_waves=encode_waves,
        encode_texts=encode_texts,
        name=f"transformers {source.checkpoint}",
        limit=tokens.limit,
        files=(source.place,) if source.original and source.place else weight_files(source.place),
        beside=beside_digest(
            None if source.original else source.place, local_path(source.processor) if source.processor else None
        ),
        mel=mel,
        scale=float(model.logit_scale_a.detach().exp()),
    )
    require_apart(towers, tokens.probes)
    return towers


def clap_text_limit(source: ClapSource) -> TextLimit:
    """How much of a text the tower reads; loads its tokenizer only."""
    if source.backend == "laion":
        return load_clap(source).limit  # laion-clap loads both
    return _tokens(source, stamp(source.place)).limit


class ReadsClap(HoldsModel):
    """A reward or an encoder over the CLAP model that `_source` names."""

    _source: ClapSource
    towers = LoadedOnUse(load_clap)

    def fingerprint(self) -> str:
        """The digest of weights and preprocessing."""
        return self.towers.fingerprint

    def limit(self) -> TextLimit:
        """How much of a text its model reads; loads the tokenizer only."""
        return clap_text_limit(self._source)


def _beside(source: ClapSource) -> str:
    """Where tokenizer and preprocessing are."""
    return source.processor or (_ROBERTA if source.original else str(source.place or source.checkpoint))


class _ClapTokens(Tokens):
    """A tokenizer with its `probes`, unrelated captions of its own words."""

    probes: Sequence[str] = PROBES


@loaded_once(8)
def _tokens(source: ClapSource, stamp: Stamp) -> _ClapTokens:
    tokenizer = open_tokenizer(reader_folder(_beside(source)))
    room = _TRAINED_ON
    if not source.original:
        text = open_config(reader_folder(source.checkpoint)).text_config
        room = min(text.max_position_embeddings - text.pad_token_id - 1, tokenizer.model_max_length)

    def made(texts: list[str]) -> dict[str, Tensor]:
        encoding = tokenizer(texts, padding=True, truncation=True, max_length=room, return_tensors="pt")
        return {name: encoding[name] for name in ("input_ids", "attention_mask")}

    reader = _ClapTokens(f"CLAP {source.checkpoint}", made, lambda text: whole_length(tokenizer, text), room)
    reader.probes = probes_for(tokenizer)
    return reader


def _laion(source: ClapSource) -> ClapTowers:
    module, encode_waves, encode_texts = packaged(Path(source.place or ""))
    towers = ClapTowers(
        module=module,
        rate=48_000,
        length=480_000,
        hop=round(source.hop * 48_000) or 480_000,
        fill="repeatpad",
        encode_waves=encode_waves,
        encode_texts=encode_texts,
        name=f"laion {source.checkpoint}",
        limit=TextLimit(f"CLAP {source.checkpoint}", lambda text: whole_length(module.tokenize, text), _TRAINED_ON),
        files=(source.place,) if source.place else (),
        scale=float(module.model.logit_scale_a.detach().exp()),
    )
    require_apart(towers, PROBES)
    return towers


def mel_of(config: dict[str, Any], fused: bool) -> LogMel:
    """The front end that a ClapFeatureExtractor's configuration describes, with the filters that the weights heard.

    Those follow the weights, `fused` or not, whichever variant's processor is at hand: laion-clap gives fused models
    torchaudio's spectrogram (HTK's scale) and has torchlibrosa's (Slaney's) in the others.
    """
    return LogMel(
        rate=config.get("sampling_rate", 48_000),
        n_fft=config.get("fft_window_size", 1024),
        hop=config.get("hop_length", 480),
        bands=config.get("feature_size", 64),
        low=float(config.get("frequency_min", 0)),
        high=float(config.get("frequency_max", 14_000)),
        scale="htk" if fused else "slaney",
    )


def probes_for(tokenizer: Tokenizer) -> Sequence[str]:
    """Four unrelated captions; of the tokenizer's own words where it does not know theirs."""
    unknown = tokenizer.unk_token_id
    if unknown is None or not any(unknown in ids for ids in tokenizer(list(PROBES))["input_ids"]):
        return PROBES
    special = set(tokenizer.all_special_tokens)
    words = [word for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]) if word not in special]
    return [" ".join(words[first::4][:4]) for first in range(4)]


def require_apart(towers: ClapTowers, probes: Sequence[str]) -> None:
    """DataError where unrelated texts get the same feature: every score would be blind to its text.

    `laion/larger_clap_music` as converted for transformers is such a checkpoint.
    """
    rows = towers.texts(list(probes), towers.device)
    cosines = rows @ rows.T
    mean = float((cosines.sum() - cosines.diagonal().sum()) / (len(rows) * (len(rows) - 1)))
    if not mean < _COLLAPSED:
        raise DataError(
            f"{towers.name}: its text tower has collapsed: {len(rows)} unrelated texts have a mean cosine of "
            f"{mean:.4f} (a healthy one stays below {_COLLAPSED}). Use another checkpoint, such as {_ROBERTA}."
        )
