"""One preprocessing of pictures for every vision tower: on float tensors, differentiable, equal to its PIL pipeline.

Each checkpoint says how it was trained (size, how to resize, mean and deviation); two scorers that disagree on any of
these give scores that differ by more than a late stage of training gains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.tensor import Tensor

_PIL_FILTERS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_FIRST = 6  # options that every digest holds
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PixelPreprocess:
    """Resize, crop or pad to `size`, clamp to [0, 1], normalise.

    Args:
        size: (height, width) the tower takes.
        mean: per channel, subtracted.
        std: per channel, divided by.
        resize: `shortest`: shorter side to size, centre crop; `longest`: longer side, pad; `squash`: both sides.
        interpolation: antialiased, as PIL's filters of that name.
        fill: of the padding, in [0, 1].
        floored: where an odd number of pixels is cropped: transformers rounds the offset down, torchvision to even.
        clamped: values that bicubic resizing takes out of [0, 1] are clamped, as PIL does.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = _CLIP_MEAN
    std: tuple[float, float, float] = _CLIP_STD
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    fill: float = 0.0
    floored: bool = False
    clamped: bool = True

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """(B, 3, H, W) in [0, 1] → (B, 3, *size), normalised, float32 or better.

        Where a value leaves [0, 1] (bicubic overshoots at edges; PIL clips it) it is clamped, and its gradient passes
        as if it were not: a clamp would leave saturated pixels without any.
        """
        x = images.to(torch.promote_types(images.dtype, torch.float32))
        target = self._resized_size(x.shape[2], x.shape[3])
        if target != tuple(x.shape[2:]):
            x = torch.nn.functional.interpolate(x, target, mode=self.interpolation, align_corners=False, antialias=True)
        x = self._fitted(x)
        if self.clamped:
            x = x + (x.clamp(0, 1) - x).detach()
        mean, std = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (x - mean) / std

    @property
    def digest(self) -> str:
        """Names this preprocessing; part of every cache key."""
        facts = astuple(self)
        while len(facts) > _FIRST and facts[-1] == astuple(PixelPreprocess(self.size))[len(facts) - 1]:
            facts = facts[:-1]  # names are older than the options at the end
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @classmethod
    def of_open_clip(cls, config: Mapping[str, Any]) -> PixelPreprocess:
        """Read it from open_clip's `preprocess_cfg`."""
        size = config["size"]
        bilinear = config.get("interpolation") == "bilinear"  # "random" is for training; open_clip then uses bicubic
        return cls(
            size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
            mean=tuple(config.get("mean") or _CLIP_MEAN),
            std=tuple(config.get("std") or _CLIP_STD),
            resize=config.get("resize_mode") or "shortest",
            interpolation="bilinear" if bilinear else "bicubic",
            fill=float(config.get("fill_color") or 0) / 255,
        )

    @classmethod
    def of_transformers(cls, config: Mapping[str, Any], where: str) -> PixelPreprocess:
        """Read it from a `preprocessor_config.json`. Raises DataError, naming `where`, on an unknown filter."""
        resample = int(config.get("resample", 3))
        if resample not in _PIL_FILTERS:
            known = ", ".join(f"{number} ({name})" for number, name in _PIL_FILTERS.items())
            raise DataError(f"{where}: resample {resample} is not supported; known: {known}.")
        size, crop = config["size"], config.get("crop_size")
        size = {"shortest_edge": size} if isinstance(size, int) else size
        if "shortest_edge" in size:
            crop = crop if crop is not None and config.get("do_center_crop", True) else size["shortest_edge"]
            target = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
            if min(target) != size["shortest_edge"]:
                raise DataError(
                    f"{where}: resizes to {size} but crops to {target}; only a crop of that size is supported."
                )
        else:
            target = (size["height"], size["width"])
        return cls(
            size=target,
            mean=tuple(config.get("image_mean") or _CLIP_MEAN),
            std=tuple(config.get("image_std") or _CLIP_STD),
            resize="shortest" if "shortest_edge" in size else "squash",
            interpolation=_PIL_FILTERS[resample],
            floored=True,
        )

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        if self.resize == "squash":
            return self.size
        ratios = (height / self.size[0], width / self.size[1])
        ratio = min(ratios) if self.resize == "shortest" else max(ratios)
        if self.resize == "shortest" and self.size[0] == self.size[1]:
            # torchvision's Resize(int) truncates the longer side; open_clip's own resize rounds.
            return max(int(self.size[0] * height / min(height, width)), 1), max(
                int(self.size[1] * width / min(height, width)), 1
            )
        return max(round(height / ratio), 1), max(round(width / ratio), 1)

    def _fitted(self, x: Tensor) -> Tensor:
        """Centre crop, after padding where a side is short."""
        lack = [max(want - have, 0) for want, have in zip(self.size, x.shape[2:], strict=True)]
        if any(lack):
            x = torch.nn.functional.pad(
                x, (lack[1] // 2, (lack[1] + 1) // 2, lack[0] // 2, (lack[0] + 1) // 2), value=self.fill
            )
        offset = int if self.floored else round
        top, left = (offset((have - want) / 2) for want, have in zip(self.size, x.shape[2:], strict=True))
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]
