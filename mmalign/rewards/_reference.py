"""Reference sets of set rewards: from pictures, from texts, or from statistics kept in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import DataError
from mmalign.core.files import require_local, write_beside
from mmalign.rewards.functional import Gaussian, gaussian

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass
class Reference:
    """Embeddings a generated set is compared with: their Gaussian and, where kept, the `rows` (M, D) themselves."""

    gaussian: Gaussian
    rows: Float[Tensor, "M D"] | None = None


def load_reference(path: str, encoder: Any) -> Reference:
    """The reference at `path`, embedded with `encoder`.

    A folder: its pictures (PNG, JPEG, WebP), in name order. `.txt`: one text per line, through the encoder's text side
    (exemplars in words). `.safetensors`: statistics written by `save_reference`.

    Raises:
        DataError: nothing there, fewer than 2 items, or statistics made with another encoder.
    """
    place = require_local(path)
    if place.is_dir():
        return _embedded(_pictures(place, encoder), place)
    if place.suffix == ".safetensors":
        return _read(place, encoder)
    if place.suffix == ".txt":
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
        return _embedded(encoder.texts(lines) if lines else torch.zeros(0, 1), place)
    raise DataError(f"{place}: a reference is a folder of pictures, a .txt of texts or a .safetensors of statistics.")


def save_reference(
    path: Path | str, rows: Float[Tensor, "M D"], encoder: Any, source: str, keep_rows: bool = True
) -> None:
    """Write statistics of embedded rows with their provenance: the encoder's fingerprint, the count and the source."""
    from safetensors.torch import save_file

    fitted = gaussian(rows)
    tensors = {"mean": fitted.mean, "cov": fitted.cov} | ({"rows": rows.float()} if keep_rows else {})
    facts = {"encoder": encoder.fingerprint(), "count": len(rows), "source": source}
    with write_beside(path) as beside:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, beside, {"provenance": json.dumps(facts)}
        )


def _pictures(folder: Path, encoder: Any) -> Tensor:
    from mmalign.media.image import read_image

    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
    if not files:
        raise DataError(f"{folder}: no pictures in it; looked for {', '.join(_PICTURES)}.")
    return torch.cat([encoder.images([read_image(file)]) for file in files])


def _embedded(rows: Tensor, place: Path) -> Reference:
    if len(rows) < 2:
        raise DataError(f"{place}: a reference set needs at least 2 items, found {len(rows)}.")
    return Reference(gaussian(rows), rows.detach())


def _read(place: Path, encoder: Any) -> Reference:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("provenance", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DataError(f"{place}: cannot be read as reference statistics ({error}).") from None
    if missing := {"mean", "cov"} - set(tensors):
        raise DataError(f"{place}: lacks {', '.join(sorted(missing))}; write it with save_reference.")
    if facts.get("encoder") != encoder.fingerprint():
        raise DataError(
            f"{place}: made with encoder {facts.get('encoder', 'unknown')}, but this run's is {encoder.fingerprint()}; "
            "distances between different embeddings mean nothing. Make the statistics again."
        )
    fitted = Gaussian(tensors["mean"], tensors["cov"], int(facts.get("count", 0)))
    return Reference(fitted, tensors.get("rows"))
