"""Train a prompt rewriter for a frozen image generator: imitate rewrites, then learn from the pictures they lead to.

    python -m pipelines.prompt_rewriter                     # the embedded models, on a CPU
    python -m pipelines.prompt_rewriter configs/text/rewriter_sft.yaml configs/text/rewriter_grpo.yaml

Two run files, one after the other: the first imitates a column of rewrites (SFT), the second starts from what came of
it and is judged through the generator (GRPO; PromptEnhancer, arXiv 2509.04545). The second alone, from the careless
rewriter as it is, is a part of `mmalign quickstart text`. Leaves both run directories and a sheet of pictures: of each
request as it came, as rewritten after imitation, and as rewritten in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import mmalign
from mmalign.cli._faults import faults_told
from mmalign.core.config import load
from mmalign.core.types import Prompt
from mmalign.media.image import contact_sheet
from mmalign.run.load import Trained
from mmalign.run.train import Finished
from mmalign.training.checkpoint import latest
from pipelines._command_line import change, files_and_changes

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIGS = Path(__file__).parents[1] / "configs"
IMITATE, ALIGN = CONFIGS / "scenes" / "rewriter_imitate.yaml", CONFIGS / "quickstart" / "text" / "rewriter.yaml"


def main(
    imitate: Path = IMITATE,
    align: Path = ALIGN,
    changes: Sequence[str] = (),
    out: Path = Path("runs/prompt_rewriter"),
) -> None:
    """Both stages; `changes` are of the second."""
    taught = mmalign.train(imitate, out=out / "imitate")
    start = latest(taught.directory.checkpoints) / "adapter"
    aligned = mmalign.train(align, [*started_from(start, align), *changes], out=out / "align")
    writers = {"imitated": mmalign.load_run(out / "imitate"), "aligned": mmalign.load_run(out / "align")}  # as saved
    requests = aligned.parts.source.held_out_items()[:8]
    album(requests, writers, aligned).save(out / "rewrites.png")
    print(f"pictures       {out / 'rewrites.png'}")


def started_from(folder: Path, align: Path) -> list[str]:
    """The change that lets the second stage start where the first ended: a LoRA goes on, full weights are the model."""
    lora = "lora" in load(align).adapter
    return [change(f"adapter.{'start_lora' if lora else 'model'}", folder)]


def album(requests: Sequence[Prompt], writers: dict[str, Trained], judge: Finished) -> Image:
    """A sheet with a column per request: as it came, then in the words of each writer."""
    through = next(slot.reward for slot in judge.parts.reward.slots.values())
    texts = {"request": [request.text for request in requests]}
    for name, run in writers.items():
        texts[name] = list(run.generate(requests).output)
    pictures = [through.made(requests, lines).output for lines in texts.values()]
    captions = [f"{name}: {line}" for name, lines in texts.items() for line in lines]
    return contact_sheet(torch.cat(pictures), captions, columns=len(requests))


if __name__ == "__main__":
    (first, second), changed = files_and_changes(__doc__, [IMITATE, ALIGN])
    with faults_told():
        main(first, second, changed)
