"""CLIP-family checkpoints as two functions, pictures → features and texts → features, whatever library wrote them.

| written as | source | read with |
|---|---|---|
| open_clip folder (`open_clip_config.json`, safetensors, tokenizer) | `checkpoint: folder` | open_clip, `local-dir:` |
| open_clip on the Hub | `checkpoint: hf-hub:org/name` | open_clip |
| open_clip's own list | `model: ViT-B-32-quickgelu`, `pretrained: openai` | open_clip |
| weights of an architecture of that list | `model: ViT-H-14`, `pretrained: FILE.safetensors` | open_clip |
| transformers (`config.json`), local or Hub (PickScore, SigLIP) | `checkpoint: folder or org/name` | transformers |

Weights are safetensors only. A loaded tower is shared by every reward that names it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.cuts import TextLimit
from mmalign.core.device import fastest
from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.files import local_path, require_local
from mmalign.core.protocols import Foreign
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.loading.clip import open_clip_folder, open_clip_model, open_clip_tokenizer
from mmalign.loading.exclusive import loaded_once
from mmalign.loading.folders import network_folder, reader_folder
from mmalign.loading.networks import open_network
from mmalign.loading.texts import open_config, open_tokenizer, preprocessor_config
from mmalign.rewards.engine.foreign_code import HoldsModel, LoadedOnUse, preserve_rng_state
from mmalign.rewards.models.frozen import (
    Stamp,
    beside_digest,
    local_or_hub,
    move_to_inputs,
    stamp,
    weight_files,
    weights_digest,
)
from mmalign.rewards.models.open_clip_names import require_known
from mmalign.rewards.models.pickled import conversion
from mmalign.rewards.models.pixels import PixelPreprocess
from mmalign.rewards.models.texts import KeptTexts, Tokens, whole_length

Backend = Literal["auto", "open_clip", "transformers"]


@dataclass(frozen=True)
class Source:
    """Which checkpoint: a `checkpoint` (folder or Hub id), or open_clip's `model` with its `pretrained` tag or file.

    `preprocess` is what of `PixelPreprocess` differs from what the checkpoint says of itself.
    """

    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    processor: str = ""
    preprocess: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.checkpoint) == bool(self.model):
            raise ConfigError(
                "name either checkpoint (a folder or Hub id) or model (with pretrained), not both or none."
            )
        if bool(self.model) != bool(self.pretrained):
            raise ConfigError(
                "model and pretrained go together: open_clip's architecture and its weights' tag (or their file)."
            )
        # Said now, not after the first samples: a folder that is not there, an open_clip name or tag that is none.
        _ = self.reader
        if self.model:
            require_known(self.model, "" if self.file else self.pretrained)

    @property
    def folder(self) -> Path | None:
        """The local folder, if it is one."""
        return local_path(self.checkpoint) if self.checkpoint and not self.checkpoint.startswith("hf-hub:") else None

    @property
    def file(self) -> Path | None:
        """The local file of weights that `pretrained` names, if it is one; DataError if it is none of safetensors."""
        if not self.model or not (Path(self.pretrained).suffix or "/" in self.pretrained):
            return None
        path = require_local(self.pretrained)
        if path.suffix != ".safetensors" or not path.is_file():
            how = f": {conversion(path)}" if path.is_file() else ""
            raise DataError(f"{path}: no .safetensors file; pickled weights are converted once{how}.")
        return path

    @property
    def place(self) -> Path | None:
        """The local folder or file of its weights."""
        return self.file or self.folder

    @property
    def reader(self) -> Literal["open_clip", "transformers"]:
        """Who reads it. DataError if a folder is neither's."""
        if self.backend != "auto":
            return self.backend
        if self.model or self.checkpoint.startswith("hf-hub:"):
            return "open_clip"
        if (folder := local_or_hub(self.checkpoint)) is None:
            return "transformers"
        if (folder / "open_clip_config.json").is_file():
            return "open_clip"
        if (folder / "config.json").is_file():
            return "transformers"
        raise DataError(f"{folder}: no open_clip_config.json and no config.json in it; not a CLIP checkpoint.")


@dataclass
class Towers:
    """A frozen CLIP: `images` and `texts` give features (not normalised), `scale` is exp(logit_scale).

    It computes on an accelerator where there is one; features come back to their inputs' device. Texts are encoded
    once each, by themselves, and kept. Calls change nothing that is shared: any number of threads may make them.
    """

    module: Any  # an nn.Module with `logit_scale`
    preprocess: PixelPreprocess
    tokenize: Tokens
    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[dict[str, Tensor]], Tensor]
    pool_text: Callable[[dict[str, Tensor]], Tensor]  # the same before the projection to the shared space
    name: str
    files: tuple[Path, ...] = ()
    beside: str = ""  # digest of configuration and tokenizer

    def __post_init__(self) -> None:
        self._texts = KeptTexts(self._encoded, self.tokenize.limit)

    def images(self, images: Float[Tensor, "B 3 H W"], dtype: torch.dtype | None = None) -> Float[Tensor, "B D"]:
        """Unit features of pictures in [0, 1], float32, with gradient to the pixels where they carry it."""
        device = move_to_inputs(self.module, images.device)
        pixels = self.preprocess(images.to(device))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype not in (None, torch.float32)):
            features = self.encode_image(pixels)
        return torch.nn.functional.normalize(features.float(), dim=1).to(images.device)

    def texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Float[Tensor, "B D"]:
        """Unit features of texts, float32; each distinct text is encoded once."""
        return self._texts(texts, move_to_inputs(self.module, torch.device(device))).to(device)

    @without_gradient
    def pooled_texts(self, texts: Sequence[str]) -> Float[Tensor, "B W"]:
        """What the text tower makes of texts before its projection, float32, not normalised; on its device."""
        device = self.module.logit_scale.device
        with torch.autocast(device.type, enabled=False):
            rows = [self.pool_text({k: v.to(device) for k, v in self.tokenize([text]).items()}) for text in texts]
        for text in texts:
            self.tokenize.limit.note(text)
        return torch.cat(rows).float()

    def _encoded(self, texts: list[str], device: torch.device) -> Tensor:
        return self.encode_text({key: value.to(device) for key, value in self.tokenize(texts).items()})

    @property
    def scale(self) -> float:
        """exp(logit_scale): what the model multiplies cosines by."""
        return float(self.module.logit_scale.detach().exp())

    @cached_property
    def fingerprint(self) -> str:
        """Names weights, configuration, tokenizer (their bytes) and preprocessing; the same on every machine."""
        return weights_digest(self.name, self.files, self.preprocess.digest, self.beside)


def load_towers(source: Source) -> Towers:
    """The towers of `source`, loaded once per process while its files do not change.

    Raises:
        ConfigError: a QuickGELU mismatch or an unknown open_clip name.
        DataError: a missing or incomplete checkpoint.
    """
    return _loaded(source, stamp(source.place))


@loaded_once(8)
def _loaded(source: Source, stamp: Stamp) -> Towers:
    with preserve_rng_state():  # building a model draws its initial weights
        towers = _open_clip(source) if source.reader == "open_clip" else _transformers(source)
    towers.module.eval().requires_grad_(False).to(fastest())
    return towers


def clip_text_limit(source: Source) -> TextLimit:
    """How much of a text the tower reads; loads its tokenizer only."""
    return _tokens(source, stamp(source.folder)).limit


class ReadsClip(HoldsModel):
    """A reward or an encoder over the CLIP-family model that `_source` names."""

    _source: Source
    towers = LoadedOnUse(load_towers)

    def fingerprint(self) -> str:
        """The digest of weights and preprocessing."""
        return self.towers.fingerprint

    def limit(self) -> TextLimit:
        """How much of a text its model reads; loads the tokenizer only."""
        return clip_text_limit(self._source)


@loaded_once(8)
def _tokens(source: Source, stamp: Stamp) -> Tokens:
    return _open_clip_tokens(source) if source.reader == "open_clip" else _transformers_tokens(source)


def _open_clip(source: Source) -> Towers:
    from open_clip import get_model_preprocess_cfg

    files = (source.file,) if source.file else weight_files(source.folder)
    folder = open_clip_folder(source.checkpoint) if source.checkpoint else None
    model = open_clip_model(folder, source.model, str(source.file or source.pretrained))
    bare = _unprojected(model)
    return Towers(
        module=model,
        preprocess=replace(
            PixelPreprocess.of_open_clip(get_model_preprocess_cfg(model)),
            **dict(source.preprocess),
        ),
        tokenize=_tokens(source, stamp(source.folder)),
        encode_image=model.encode_image,
        encode_text=lambda tokens: model.encode_text(tokens["ids"]),
        pool_text=lambda tokens: bare(tokens["ids"]),
        name=f"open_clip {source.checkpoint or source.model} {source.pretrained}",
        files=files,
        beside=beside_digest(source.folder),
    )


def _open_clip_tokens(source: Source) -> Tokens:
    folder = reader_folder(source.checkpoint.removeprefix("hf-hub:")) if source.checkpoint else None
    tokenizer = open_clip_tokenizer(folder, source.model)
    from open_clip.tokenizer import SimpleTokenizer

    def count(text: str) -> int:
        if isinstance(tokenizer, SimpleTokenizer):
            return len(tokenizer.encode(text)) + 2  # its start and its end
        return whole_length(tokenizer.tokenizer, tokenizer.clean_fn(text))

    reader = f"CLIP {source.checkpoint or source.model}"
    return Tokens(reader, lambda texts: {"ids": tokenizer(texts)}, count, int(tokenizer.context_length))


def _unprojected(model: Foreign) -> Callable[[Tensor], Tensor]:
    """ids → features before the projection, which open_clip applies within `encode_text`.

    By a second view of the model, with the same weights and without the projection: the model itself is shared. Models
    of open_clip are looked at by the names of their parts, for no class has them all.
    """
    tower = getattr(model, "text", model)
    if not hasattr(tower, "text_projection"):

        def refuse(ids: Tensor) -> Tensor:
            raise CapabilityError(f"a text tower of {type(tower).__name__} shows no features before its projection.")

        return refuse
    bare = _view(tower, text_projection=None)
    whole = bare if tower is model else _view(model, text=bare)
    return lambda ids: whole.encode_text(ids, normalize=False)


def _view(module: Any, **other: Any) -> Any:
    """`module` with other parts, of the same weights, itself unchanged; moving either moves the other's."""
    view = copy.copy(module)
    view._parameters, view._modules = dict(module._parameters), dict(module._modules)
    for name, value in other.items():
        setattr(view, name, value)
    return view


def _transformers(source: Source) -> Towers:
    folder = source.folder
    files = weight_files(folder)
    name = network_folder(source.checkpoint)
    model: Any = open_network(name, "AutoModel", heads=True)
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise DataError(f"{name}: a {type(model).__name__} has no image and text features; not a CLIP-family model.")
    beside = reader_folder(source.processor) if source.processor else name
    return Towers(
        module=model,
        preprocess=replace(
            PixelPreprocess.of_transformers(preprocessor_config(beside, "image_processor"), str(beside)),
            **dict(source.preprocess),
        ),
        tokenize=_tokens(source, stamp(source.folder)),
        encode_image=lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output,
        encode_text=lambda inputs: model.get_text_features(**inputs).pooler_output,
        pool_text=lambda inputs: model.text_model(**inputs).pooler_output,
        name=f"transformers {source.checkpoint}",
        files=files,
        beside=beside_digest(folder, local_path(source.processor) if source.processor else None),
    )


def _transformers_tokens(source: Source) -> Tokens:
    tokenizer = open_tokenizer(reader_folder(source.processor or source.checkpoint))
    room = open_config(reader_folder(source.checkpoint)).text_config.max_position_embeddings

    def made(texts: list[str]) -> dict[str, Tensor]:
        return dict(tokenizer(texts, padding="max_length", truncation=True, max_length=room, return_tensors="pt"))

    return Tokens(f"CLIP {source.checkpoint}", made, lambda text: whole_length(tokenizer, text), room)
