"""What the embedded generators satisfy before any training, on the prompts of the tables, by steps and guidance.

    python -m pipelines.untouched            # assets/results/selection/untouched.json

Aligned generators are compared with these: R0 at 4 steps without guidance, say, with 28 steps and guidance, which cost
14 times as many model calls.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import mmalign
from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from pipelines._command_line import options
from pipelines.results import RESULTS, keep

OUT = RESULTS / "selection" / "untouched.json"
READY = Path(__file__).parents[1] / "configs" / "quickstart"
WORLDS = {"pictures": READY / "image.yaml", "sounds": READY / "audio.yaml"}
#: Sampling steps, and the guidance scale (1 is none).
WAYS = ((4, 1.0), (8, 1.0), (8, 3.0), (28, 3.0))


def verified(config: Path, steps: int, guidance: float, seed: int) -> float:
    """The share of held-out prompts that a world's generator fully satisfies."""
    policy = f"{{name: flow, num_inference_steps: {steps}, guidance_scale: {guidance}, noise_level: 0}}"
    truth = "{truth: {name: verifier}}"
    changes = [f"policy={policy}", "objective={name: grpo}", f"rewards={truth}", "evaluation.judges={}"]
    return float(mmalign.evaluate(config, changes=[*changes, f"evaluation.seed={seed}"]).evaluation.means()["truth"])


def main(seeds: tuple[int, ...] = (0, 1, 2), out: Path = OUT) -> None:
    """Measure and write the JSON."""
    by_world: dict[str, list[dict[str, object]]] = {}
    for world, config in WORLDS.items():
        by_world[world] = []
        for steps, guidance in WAYS:
            shares = [verified(config, steps, guidance, seed) for seed in seeds]
            by_world[world].append(
                {"steps": steps, "guidance": guidance, "mean": statistics.fmean(shares), "seeds": shares}
            )
            print(f"{world}, {steps} steps, guidance {guidance:g}: {statistics.fmean(shares):.3f} {shares}", flush=True)
    command = "python -m pipelines.untouched"
    keep(out, {"command": command, "commit": commit(), **by_world})


if __name__ == "__main__":
    given = options(
        __doc__,
        seeds={"type": int, "nargs": "+", "default": [0, 1, 2], "help": "of the noise"},
        out={"type": Path, "default": OUT, "help": "the JSON to write; %(default)s"},
    )
    with errors_as_sentences():
        main(tuple(given.seeds), given.out)
