"""Fine-tune a text-to-image model against rewards, in Python, part by part.

python -m pipelines.text_to_image                                     # the embedded model, a few minutes on a CPU
python -m pipelines.text_to_image configs/text_to_image/sd3_grpo.yaml data.path=my_prompts.txt
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import mmalign
from mmalign.cli._faults import faults_told
from mmalign.core.config import load
from mmalign.core.rng import stream
from mmalign.core.types import Rollout, Scores
from mmalign.media.image import contact_sheet
from mmalign.run.build import build
from mmalign.run.train import held_out
from mmalign.training.session import Session
from pipelines._command_line import files_and_changes
from pipelines._written_out import train_between_measurements

CONFIG = Path(__file__).parents[1] / "configs" / "scenes" / "grpo_verifier.yaml"


@mmalign.rule(modalities={"image"}, range=(0.0, 1.0))
def colourful(prompt: mmalign.Prompt, output: torch.Tensor) -> float:
    """A reward of one's own: how far the pixels are from grey, (3, H, W) in [0, 1]."""
    return float((output.amax(0) - output.amin(0)).mean())


def main(config: Path = CONFIG, changes: tuple[str, ...] = (), out: Path = Path("runs/pipeline")) -> list[Any]:
    """Build, measure, train, measure again; leaves sheets of pictures, and the trained weights, in `out`."""
    parts = build(load(config, changes))  # every check of the run file happens here, before any weight is loaded
    parts.load()

    sheets = Sheets(held_out(parts)[:16], out)
    rows = train_between_measurements(parts, {"colourful": colourful()}, [sheets])
    parts.adapter.save(out / "adapter")  # plain diffusers loads it
    return rows


class Sheets:
    """The same prompts with the same noise every ten steps, as pictures to look at."""

    def __init__(self, prompts: list[Any], out: Path) -> None:
        self.prompts, self.out = prompts, out

    def __call__(self, session: Session, policy: Any, experience: Any) -> None:
        """Write one sheet when due."""
        if session.step % 10 or not self.prompts:
            return
        with session.update_rule.averaged():  # what would be saved
            made: Rollout = policy.generate(self.prompts, stream(0, "sheet"))
        scores: Scores = colourful()(made)
        captions = [f"{p.text}\n{v:.2f}" for p, v in zip(self.prompts, scores.value.tolist(), strict=True)]
        self.out.mkdir(parents=True, exist_ok=True)
        contact_sheet(made.output, captions).save(self.out / f"step_{session.step:04d}.png")


if __name__ == "__main__":
    (chosen,), changed = files_and_changes(__doc__, [CONFIG])
    with faults_told():
        main(chosen, changed)
