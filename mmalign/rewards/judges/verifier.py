"""Whether a miniworld output is what its prompt asks, read back exactly: the truth learned rewards are held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.packages import need
from mmalign.core.types import Audio, Rollout, Scores, Status

__all__ = ["Verifier"]


@dataclass
class Verifier:
    """Reads scenes (pictures, 64 x 64) or tunes (sound) back and checks every clause of the prompt.

    The request is `prompt.meta["request"]` where given (a rewritten prompt keeps its original there), else the prompt.
    A text outside the world's grammar is NOT_APPLICABLE; sound without samples, or with NaN, is an ERROR. Both readings
    are in `parts`: "graded" and "strict".

    Args:
        graded: the share of clauses that hold, in [0, 1]; else 1 when all do, 0 when not.
    """

    graded: bool = False
    modalities = frozenset({"image", "audio"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B pictures (B, 3, 64, 64) or sounds by the clauses that hold; 1 if all do.

        Raises:
            CapabilityError: pictures of another size.
        """
        from mmalign.miniworld.language import CaptionError

        parse, check, outputs = (_tunes if isinstance(rollout.output, Audio) else _scenes)(rollout.output)
        graded, strict = (torch.full((len(rollout),), float("nan")) for _ in range(2))
        status = torch.full((len(rollout),), int(Status.NOT_APPLICABLE), dtype=torch.int8)
        info = [""] * len(rollout)
        for row, (prompt, output) in enumerate(zip(rollout.prompts, outputs, strict=True)):
            try:
                request = parse(str(prompt.meta.get("request") or prompt.text))
            except CaptionError as error:
                info[row] = str(error)
                continue
            if output is None:
                status[row], info[row] = int(Status.ERROR), "the sound is empty or not finite"
                continue
            truths = check(output, request)
            status[row], graded[row], strict[row] = int(Status.OK), float(np.mean(truths)), float(all(truths))
        parts = {"graded": graded, "strict": strict}
        value = (graded if self.graded else strict).clone()
        device = (rollout.output.samples if isinstance(rollout.output, Audio) else rollout.output).device
        return Scores(value, status, parts=parts, info=info if any(info) else None).to(device)


World = tuple[Callable[[str], Any], Callable[[Any, Any], list[bool]], list[Any]]


def _scenes(images: torch.Tensor) -> World:
    """How captions of scenes are read, how pictures are checked, and the pictures."""
    from mmalign.miniworld.grammar import parse
    from mmalign.miniworld.scenes import IMAGE_SIZE
    from mmalign.miniworld.verifier import verify

    if tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise CapabilityError(
            f"the verifier reads pictures (3, {IMAGE_SIZE}, {IMAGE_SIZE}); these are {tuple(images.shape[1:])}."
        )
    return parse, verify, list(images.detach().float().cpu().numpy())


def _tunes(audio: Audio) -> World:
    """How captions of tunes are read, how clips are checked, and the clips: one channel each, None where unreadable."""
    from mmalign.miniworld.tunes.grammar import parse
    from mmalign.miniworld.tunes.tune import RATE
    from mmalign.miniworld.tunes.verifier import verify

    samples = audio.samples.detach().float().cpu().mean(1)
    lengths = [samples.shape[1]] * len(audio) if audio.mask is None else audio.mask.sum(1).tolist()
    clips = [row[:length] for row, length in zip(samples, lengths, strict=True)]
    if audio.rate != RATE:
        resample = need("torchaudio.functional").resample

        clips = [resample(clip, audio.rate, RATE) if len(clip) else clip for clip in clips]
    return parse, verify, [clip.numpy() if len(clip) and clip.isfinite().all() else None for clip in clips]
