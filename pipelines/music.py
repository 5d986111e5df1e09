"""Align a music generator: towards a folder of exemplars, a text file of descriptions, or preferences.

    python -m pipelines.music exemplars/                          # DRAGON: the set shall sound like the folder
    python -m pipelines.music descriptions.txt --pairs rows.jsonl # … like the texts say, through a CLAP
    python -m pipelines.music preferences.jsonl                   # DPO on {"prompt", "chosen", "rejected"}, sound files
    python -m pipelines.music exemplars/ --objective grpo         # the same distance as credit per clip; or r0

Every other word is a change of the run file, as `trainer.steps=50`. By default Stable Audio Open (one 80 GB GPU); any
run file of sound does, `--config mine.yaml`. Leaves a run directory with a report whose sounds can be played.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import mmalign
from mmalign.core.config import load
from mmalign.core.errors import ConfigError
from mmalign.core.files import require_local
from mmalign.run.train import Finished

CONFIG = Path(__file__).parents[1] / "configs" / "text_to_audio" / "stable_audio_dragon.yaml"
Objective = Literal["dragon", "grpo", "r0"]

#: What else changes with the objective: GRPO explores by noise (below), R0 needs few steps to differentiate through.
FORMS: dict[Objective, list[str]] = {
    "dragon": [],
    "grpo": ["objective={name: grpo, group_size: 8}"],
    "r0": ["objective={name: r0}", "policy={name: few_step, num_inference_steps: 4, eval_steps: 4}"],
}
NOISE = {"ddpm": "policy.eta=1.0", "flow": "policy.noise_level=0.6"}
PREFERENCES = ["objective={name: dpo, beta: 2000, beta_unit: mean, draws: 2}", "rewards={}"]


def changes_for(config: Path, target: str, objective: Objective = "dragon", pairs: str = "") -> list[str]:
    """The changes of a run file that align towards `target`.

    Args:
        config: the run file; its first reward with a `reference` gets the target.
        target: a folder of sounds, a `.txt` of descriptions, `.safetensors` statistics, or a table of preferences.
        objective: of the first three.
        pairs: captioned sounds that measure the gap between a CLAP's texts and sounds; for descriptions.

    Raises:
        DataError: nothing there.
        ConfigError: descriptions without `pairs`, an objective for preferences, or a run file without such a reward.
    """
    place = require_local(target)
    if place.is_file() and place.suffix in (".jsonl", ".parquet", ".csv"):
        if objective != "dragon":
            raise ConfigError(f"--objective {objective}: preferences are learned by DPO; leave it out.")
        return [*PREFERENCES, f"data={{name: preferences, path: {place}}}"]
    if place.suffix == ".txt" and not pairs:
        raise ConfigError(
            "--pairs: descriptions are compared with sounds across a CLAP's modality gap; name a JSONL of sounds with "
            "their captions, or none."
        )
    run = load(config)
    slot = next((name for name, reward in run.rewards.items() if "reference" in reward), None)
    if slot is None:
        raise ConfigError(f"{config}: none of its rewards has a `reference` that could become {place}.")
    told = [f"rewards.{slot}.pairs={pairs}"] if pairs else []
    noise = [NOISE[run.policy["name"]]] if objective == "grpo" and run.policy["name"] in NOISE else []
    return [f"rewards.{slot}.reference={place}", *told, *FORMS[objective], *noise]


def main(config: Path, target: str, objective: Objective, pairs: str, changes: Sequence[str], out: Path) -> Finished:
    """Train, and say where to listen."""
    finished = mmalign.train(config, [*changes_for(config, target, objective, pairs), *changes], out=out)
    for row in finished.rows:
        print(f"{row.name:12} {row.before:8.3f} -> {row.after:8.3f}")
    print(f"listen         {out / 'report.html'}")
    return finished


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="exemplars, descriptions or preferences")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--objective", choices=list(FORMS), default="dragon")
    parser.add_argument("--pairs", default="")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--out", type=Path, default=Path("runs/music"))
    given = parser.parse_intermixed_args()
    main(given.config, given.target, given.objective, given.pairs, given.changes, given.out)
