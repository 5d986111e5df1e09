"""Fine-tune a text-to-image model against rewards, in Python, with a reward and a hook of one's own.

python -m pipelines.text_to_image                                     # the embedded model, a few minutes on a CPU
python -m pipelines.text_to_image configs/text_to_image/sd3_grpo.yaml data.path=my_prompts.txt
python -m pipelines.text_to_image --resume runs/text_to_image         # goes on after Ctrl-C

Leaves a run directory: checkpoints that plain diffusers loads, samples, curves and a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmalign
from pipelines._command_line import given, same_file
from pipelines._printing import tell

if TYPE_CHECKING:
    from mmalign.run.train import Finished

CONFIG = Path(__file__).parents[1] / "configs" / "scenes" / "grpo_verifier.yaml"
OUT = Path("runs/text_to_image")


@mmalign.rule(modalities={"image"}, range=(0.0, 1.0))
def colourful(prompt: mmalign.Prompt, output: Any) -> float:
    """A reward of one's own: how far the pixels are from grey, (3, H, W) in [0, 1]."""
    return float((output.amax(0) - output.amin(0)).mean())


def steep(session: Any, policy: Any, experience: Any) -> None:
    """A hook of one's own, called after every step with its numbers in `session.latest`."""
    if session.is_main and session.latest.get("grad/norm", 0.0) > 10:
        print(f"step {session.step}: a steep gradient, of norm {session.latest['grad/norm']:.3g}", flush=True)


def main(config: Path = CONFIG, changes: Sequence[str] = (), out: Path = OUT, resume: Path | None = None) -> Finished:
    """Check, measure, train, measure again; every check of the run file happens before any weight is loaded."""
    return mmalign.train(
        same_file(resume, config),
        changes,
        out=None if resume else out,
        resume=resume,
        judges={"colourful": colourful()},  # measured before and after, and shown in samples; not trained on
        hooks=[steep],
    )


if __name__ == "__main__":
    asked = given(__doc__, [CONFIG], OUT)
    with mmalign.errors_as_sentences():
        tell(main(asked.files[0], asked.changes, asked.out, asked.resume))
