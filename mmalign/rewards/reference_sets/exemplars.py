"""Exemplars in files, embedded: pictures, sounds, and sounds with their captions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError, MediaError, all_faults
from mmalign.core.protocols import Encoder, FrameEncoder, ImageEncoder, TextEncoder
from mmalign.core.regular import written
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.texts import parsed, read_text
from mmalign.core.types import Audio, Prompt, Rollout
from mmalign.media.folders import media_in, skipped
from mmalign.media.kinds import NOUNS, READ, Kind
from mmalign.rewards.encoders import no_side

log = logging.getLogger("mmalign")


def embedded_files(
    folder: Path, encoder: Encoder, frames: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Float[Tensor, "_ D"]]:
    """One row per file of `folder` that the encoder takes, in name order, or with `frames` all of its frames.

    What a file is stands in it, not in its name. Other files, and folders, are counted in a warning.

    Raises:
        DataError: no such files, or files that cannot be decoded or embedded, all of them named.
    """
    kind: Kind = "audio" if "audio" in encoder.modalities else "image"
    listing = media_in(folder)
    files = listing.of(kind)
    others = [*listing.others, *(written(file.name) for file, of in listing.kinds.items() if of != kind)]
    notice = skipped(sorted(others), len(others) + len(files), f"no {NOUNS[kind]}s")
    if not files:
        why = f"no {NOUNS[kind]}s in it (read are {', '.join(READ[kind])})"
        raise DataError(f"{written(folder)}: {'; '.join(filter(None, (why, notice)))}.")
    if notice:
        log.warning("%s: %s", written(folder), notice)
    rows, faults = [], []
    for done, file in enumerate(files, 1):
        try:
            rows.append(_sound(file, encoder, frames) if kind == "audio" else _picture(file, encoder))
        except MediaError as error:
            faults.append(str(error))
        if progress:
            progress(done, len(files))
    if faults:
        raise all_faults(faults)
    return rows


def modality_gap(pairs: Path, encoder: Encoder) -> Float[Tensor, " D"]:
    """mean(sounds) - mean(captions) over a JSONL of {"prompt": caption, "output": sound file beside it}.

    Raises:
        DataError: lines that are none of these, all of them named, or fewer than 2 lines.
    """
    if not isinstance(encoder, TextEncoder):
        raise no_side(TextEncoder, "embeds no texts")
    captions, sounds, faults = [], [], []
    for number, line in enumerate(read_text(pairs).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parsed(line, f"{pairs}:{number}")
            if not isinstance(row["prompt"], str):
                raise TypeError(f"the caption is {json.dumps(row['prompt'])}, not a text")
            sounds.append(_sound(pairs.parent / row["output"], encoder, False))
            captions.append(row["prompt"])
        except (DataError, KeyError, TypeError, MediaError) as error:
            faults.append(f'{pairs}:{number}: not {{"prompt": caption, "output": sound file}} ({error}).')
    if faults:
        raise all_faults(faults)
    if len(captions) < 2:
        raise DataError(f"{pairs}: the gap is a mean over pairs; give at least 2, found {len(captions)}.")
    mean = torch.cat(sounds).mean(0)
    return mean - encoder.texts(captions).mean(0).to(mean)


@without_gradient
def _sound(file: Path, encoder: Encoder, frames: bool) -> Tensor:
    from mmalign.media.audio import read_audio

    samples, rate = read_audio(file)
    rollout = Rollout([Prompt("")], Audio(samples[None], rate), torch.zeros(1, dtype=torch.long))
    if not frames:
        rows = encoder.embed(rollout)
    elif isinstance(encoder, FrameEncoder):
        rows = encoder.frames(rollout)[0]
    else:
        raise no_side(FrameEncoder, "gives one row per output and no frames")
    if not len(rows) or not bool(rows.isfinite().all()):
        raise MediaError(f"{file}: cannot be embedded; its features are not finite.")
    return rows


def _picture(file: Path, encoder: Encoder) -> Tensor:
    from mmalign.media.image import read_image

    if not isinstance(encoder, ImageEncoder):
        raise no_side(ImageEncoder, "embeds no pictures")
    return encoder.images([read_image(file)])
