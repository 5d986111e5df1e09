"""Train a prompt rewriter for a frozen image generator: imitate rewrites, then learn from the pictures they lead to.

    python -m pipelines.prompt_rewriter                     # the embedded models, on a CPU
    python -m pipelines.prompt_rewriter configs/text/rewriter_sft.yaml configs/text/rewriter_grpo.yaml
    python -m pipelines.prompt_rewriter --resume runs/prompt_rewriter      # goes on after Ctrl-C

Two run files, one after the other: the first imitates a column of rewrites (SFT), the second starts from what came of
it and is judged through the generator (GRPO; PromptEnhancer, arXiv 2509.04545). The second alone, from the careless
rewriter as it is, is a part of `mmalign quickstart text`. A change is of both run files, `imitate.KEY.PATH=VALUE` of
the first and `align.KEY.PATH=VALUE` of the second: one's own requests and rewrites are `data.path=mine.jsonl`, with
`imitate.objective.target=COLUMN`. Both files are checked before the first trains. Leaves both run directories and a
sheet of pictures: of each request as it came, as rewritten after imitation, and as rewritten in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mmalign
from pipelines._command_line import change, given

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmalign.core.types import Prompt
    from mmalign.run.load import Trained

CONFIGS = Path(__file__).parents[1] / "configs"
IMITATE, ALIGN = CONFIGS / "scenes" / "rewriter_imitate.yaml", CONFIGS / "quickstart" / "text" / "rewriter.yaml"
OUT = Path("runs/prompt_rewriter")
STAGES = ("imitate", "align")


def main(
    imitate: Path = IMITATE, align: Path = ALIGN, changes: Sequence[str] = (), out: Path = OUT, resume: bool = False
) -> None:
    """Both stages, each in a run directory of its own below `out`; `resume` goes on with what is there of them."""
    from mmalign.core.checkpoints import latest
    from mmalign.core.config import load
    from pipelines._stages import check, of_stage, stage

    by_stage = dict(zip(STAGES, (of_stage(changes, name, STAGES) for name in STAGES), strict=True))
    check([(imitate, by_stage["imitate"], out / "imitate"), (align, by_stage["align"], out / "align")], resume)
    taught = stage(load(imitate, by_stage["imitate"]), out / "imitate")
    started = started_from(latest(taught / "checkpoints") / "adapter", align, by_stage["align"])
    aligned = stage(load(align, [*by_stage["align"], *started]), out / "align")
    writers = {"imitated": mmalign.load_run(out / "imitate"), "aligned": mmalign.load_run(out / "align")}  # as saved
    requests = cast("Sequence[Prompt]", writers["aligned"].parts.source.held_out_items()[:8])
    album(requests, writers).save(out / "rewrites.png")
    print(f"run directory  {aligned}\npictures       {out / 'rewrites.png'}")


def started_from(weights: Path, align: Path, changes: Sequence[str]) -> list[str]:
    """The change that lets the second stage start where the first ended: a LoRA goes on, full weights are the model."""
    from mmalign.core.config import load

    lora = load(align, changes).adapter.get("lora")
    return [change(f"adapter.{'start_lora' if lora else 'model'}", weights)]


def album(requests: Sequence[Prompt], writers: dict[str, Trained]) -> Image:
    """A sheet with a column per request: as it came, then in the words of each writer."""
    import torch

    from mmalign.media.image import contact_sheet

    through = next(
        slot.reward for slot in writers["aligned"].parts.reward.slots.values() if hasattr(slot.reward, "made")
    )
    texts = {"request": [request.text for request in requests]}
    for name, run in writers.items():
        texts[name] = list(run.generate(requests).output)
    pictures = [through.made(requests, lines).output for lines in texts.values()]
    captions = [f"{name}: {line}" for name, lines in texts.items() for line in lines]
    return contact_sheet(torch.cat(pictures), captions, columns=len(requests))


if __name__ == "__main__":
    asked = given(__doc__, [IMITATE, ALIGN], OUT)
    with mmalign.errors_as_sentences():
        main(asked.files[0], asked.files[1], asked.changes, asked.out, resume=asked.resume is not None)
