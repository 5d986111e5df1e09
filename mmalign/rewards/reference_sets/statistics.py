"""Reference sets of set rewards: from pictures, sounds or texts, or from statistics kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import require_local, write_beside
from mmalign.core.protocols import Encoder, TextEncoder
from mmalign.core.tensor import Tensor
from mmalign.core.texts import text_lines
from mmalign.rewards.encoders import no_side
from mmalign.rewards.functional import Gaussian, Moments, gaussian
from mmalign.rewards.reference_sets.exemplars import embedded_files, modality_gap
from mmalign.rewards.reference_sets.source import Source, Unit, store

__all__ = ["Reference", "Unit", "encoder_of", "load_reference", "read_reference", "save_reference", "write_reference"]

Progress = Callable[[int, int], None]
LEAST_SHARE = 4  # of the dimensions: one in so many must be spanned


@dataclass
class Reference:
    """Embeddings a generated set is compared with: their Gaussian and, where kept, the `rows` (M, D) themselves.

    `unit`: each row is an output, or a frame of one.
    """

    gaussian: Gaussian
    rows: Float[Tensor, "M D"] | None = None
    unit: Unit = "row"

    def on_cpu(self, rows: bool) -> Reference:
        """The same as it is read from a file, with or without its `rows`."""
        plain = self.rows.detach().float().cpu() if rows and self.rows is not None else None
        return Reference(self.gaussian.to("cpu"), plain, self.unit)

    def require_covariance(self, name: str, least: int = 0) -> Reference:
        """Itself, if its covariance can be told from its rows.

        A covariance of D×D from n rows has at most n - 1 directions; what it says of the others is that nothing varies
        there. The least is `least` rows, or (0) a quarter of D, where three in four directions are still made up.

        Raises:
            DataError: fewer rows.
        """
        width = len(self.gaussian.mean)
        wanted = least or -(-width // LEAST_SHARE)
        if self.gaussian.count < wanted:
            raise DataError(
                f"{name}: a covariance of {width}×{width} from {self.gaussian.count} {self.unit}s says nearly nothing. "
                f"Give at least {wanted} (better {width} and more), take an encoder of fewer dimensions, or compare by "
                "`mmd` (of sounds `kad`), which needs no covariance. Whoever means it sets least_rows."
            )
        return self


def load_reference(
    path: str,
    encoder: Encoder,
    unit: Unit = "row",
    pairs: str = "",
    progress: Progress | None = None,
    rows: bool = True,
) -> Reference:
    """The reference at `path`, embedded with `encoder`; in a run that goes on, what was there when it began.

    A folder: its pictures or, for an encoder of sound, its sounds, in name order and by what the files hold
    (`mmalign/media/kinds.py`); what else lies there is counted in a warning. `.txt`: one text per line, with comments
    as in files of prompts, through the encoder's text side (exemplars in words). `.safetensors`: statistics written by
    `save_reference`.

    **Texts for sounds.** A CLAP puts sounds and texts apart (the modality gap), and that constant distance would
    outweigh all others. `pairs`, a JSONL of {"prompt": caption, "output": sound file}, measures it: the texts are moved
    by mean(sounds) - mean(captions). `pairs: none` compares across the gap as it is.

    Args:
        path: see above.
        encoder: from `make_encoder`.
        unit: `frame` fits the Gaussian to all frames of all sounds (per-song FAD) and keeps no rows.
        pairs: see above; for texts only.
        progress: called with (files done, files in all).
        rows: whether the rows are needed besides their Gaussian.

    Raises:
        DataError: nothing there, fewer than 2 items, unusable files, or statistics of another encoder or unit.
        ConfigError: texts for an encoder of sounds without `pairs`.
    """

    def made() -> Reference:
        return _made(require_local(path), encoder, unit, pairs, progress)

    where = store()
    return made() if where is None else where.get(Source(path, encoder, unit, pairs, rows), made)


def _made(place: Path, encoder: Encoder, unit: Unit, pairs: str, progress: Progress | None) -> Reference:
    if place.is_dir():
        return _fitted(embedded_files(place, encoder, unit == "frame", progress), place, unit)
    if place.suffix == ".safetensors":
        return read_reference(place, encoder, unit)[0]
    if place.suffix != ".txt":
        raise DataError(
            f"{place}: a reference is a folder of pictures or sounds, a .txt of texts or a .safetensors of statistics."
        )
    if unit == "frame":
        raise DataError(f"{place}: texts have no frames; per-song statistics need a folder of sounds.")
    if not isinstance(encoder, TextEncoder):
        raise no_side(TextEncoder, "embeds no texts")
    lines = [line for _, line in text_lines(place)]
    rows = encoder.texts(lines) if lines else torch.zeros(0, 1)
    if "audio" in encoder.modalities and pairs != "none" and len(rows) > 1:
        if not pairs:
            raise ConfigError(
                f"pairs: {place.name} holds texts and the encoder puts sounds elsewhere (the modality gap); name a "
                "JSONL of sounds with their captions that measures it, or `pairs: none` to compare across it as it is."
            )
        rows = rows + modality_gap(require_local(pairs), encoder).to(rows)
    return _fitted(list(rows[:, None]), place, unit)


def save_reference(
    path: Path | str,
    rows: Float[Tensor, "M D"] | Reference,
    encoder: Encoder,
    source: str,
    keep_rows: bool = True,
) -> None:
    """Write statistics of embedded rows with their provenance: encoder (fingerprint and options), count and source."""
    whole = rows if isinstance(rows, Reference) else Reference(gaussian(rows), rows)
    written = Reference(whole.gaussian, whole.rows if keep_rows else None, whole.unit)
    write_reference(path, written, encoder, {"source": source}, root=False)


def write_reference(
    path: Path | str, reference: Reference, encoder: Encoder, facts: Mapping[str, Any], root: bool = True
) -> None:
    """Write a reference and `facts` of it; with the covariance's `root` it is read again to the last bit."""
    from safetensors.torch import save_file

    fitted = reference.gaussian
    tensors = {"mean": fitted.mean, "cov": fitted.cov} | ({"root": fitted.root} if root else {})
    if reference.rows is not None:
        tensors["rows"] = reference.rows.float()
    provenance = {
        "encoder": encoder.fingerprint(),
        "spec": spec_of(encoder),
        "unit": reference.unit,
        "count": fitted.count,
        **facts,
    }
    with write_beside(path) as beside:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            beside,
            {"provenance": json.dumps(provenance)},
        )


def spec_of(encoder: Any) -> dict[str, Any]:
    """What `make_encoder` makes it again from. It is an `Encoder` and a dataclass, for which there is no one type."""
    return {"name": type(encoder).__module__.rpartition(".")[2], **asdict(encoder)}


def encoder_of(reference: str) -> dict[str, Any]:
    """The spec of the encoder that statistics were made with; {} for files, which could be embedded by any."""
    place = require_local(reference)
    spec = _opened(place)[1].get("spec", {}) if place.suffix == ".safetensors" else {}
    return dict(spec) if "name" in spec else {}


def _fitted(pieces: list[Tensor], place: Path, unit: Unit) -> Reference:
    """Fit the statistics to the rows of every file."""
    if unit == "frame":
        moments = [Moments.of(piece) for piece in pieces]
        total = sum(moments[1:], moments[0])
        if total.count < 2:
            raise DataError(f"{place}: a reference of frames needs at least 2 of them, found {total.count}.")
        return Reference(total.gaussian(), unit=unit)
    if len(pieces) < 2:
        raise DataError(f"{place}: a reference set needs at least 2 items, found {len(pieces)}.")
    rows = torch.cat(pieces).detach()
    return Reference(gaussian(rows), rows)


def _opened(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("provenance", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DataError(f"{place}: cannot be read as reference statistics ({error}).") from None


def read_reference(place: Path, encoder: Encoder, unit: Unit) -> tuple[Reference, dict[str, Any]]:
    """The statistics of `unit`s by `encoder` in a file, and the facts that were written with them.

    Raises:
        DataError: the file cannot be read, or is of another encoder or unit.
    """
    tensors, facts = _opened(place)
    if missing := {"mean", "cov"} - set(tensors):
        raise DataError(f"{place}: lacks {', '.join(sorted(missing))}; write it with save_reference.")
    if facts.get("encoder") != encoder.fingerprint():
        raise DataError(
            f"{place}: made with encoder {facts.get('encoder', 'unknown')}, but this run's is {encoder.fingerprint()}; "
            "distances between different embeddings mean nothing. Make the statistics again."
        )
    if (own := facts.get("unit", "row")) != unit:
        raise DataError(
            f"{place}: holds statistics of {own}s, this reward compares {unit}s; make them with --unit {unit}."
        )
    try:
        whole = {"root": tensors["root"]} if "root" in tensors else {}
        fitted = Gaussian(tensors["mean"], tensors["cov"], int(facts.get("count", 0)), **whole)
    except (ValueError, TypeError) as error:
        raise DataError(f"{place}: cannot be read as reference statistics ({error}).") from None
    return Reference(fitted, tensors.get("rows"), unit), facts
