"""Whether a miniworld picture shows what its prompt asks, read back exactly: the truth learned rewards are held to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.types import Rollout, Scores, Status

__all__ = ["Verifier"]


@dataclass
class Verifier:
    """Reads scenes (64 x 64) back and checks every clause of the prompt.

    The request is `prompt.meta["request"]` where given (a rewritten prompt keeps its original there), else the prompt.
    A text outside the miniworld's grammar is NOT_APPLICABLE. Both readings are in `parts`: "graded" and "strict".

    Args:
        graded: the share of clauses that hold, in [0, 1]; else 1 when all do, 0 when not.
    """

    graded: bool = False
    modalities = frozenset({"image"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        from mmalign.miniworld.grammar import CaptionError, parse
        from mmalign.miniworld.scenes import IMAGE_SIZE
        from mmalign.miniworld.verifier import verify_batch

        images = rollout.output.detach().float().cpu()
        if tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise CapabilityError(
                f"the verifier reads pictures (3, {IMAGE_SIZE}, {IMAGE_SIZE}); these are {tuple(images.shape[1:])}."
            )
        rows, requests, info = [], [], [""] * len(rollout)
        for row, prompt in enumerate(rollout.prompts):
            try:
                requests.append(parse(str(prompt.meta.get("request") or prompt.text)))
                rows.append(row)
            except CaptionError as error:
                info[row] = str(error)
        graded, strict = (torch.full((len(rollout),), float("nan")) for _ in range(2))
        status = torch.full((len(rollout),), int(Status.NOT_APPLICABLE), dtype=torch.int8)
        if rows:
            verdict = verify_batch(images[rows].numpy(), requests)
            graded[rows] = torch.as_tensor(verdict.fraction).float()
            strict[rows] = torch.as_tensor(verdict.fulfilled).float()
            status[rows] = int(Status.OK)
        parts = {"graded": graded, "strict": strict}
        value = (graded if self.graded else strict).clone()
        return Scores(value, status, parts=parts, info=info if any(info) else None).to(rollout.output.device)
