"""Align a music generator: towards a folder of exemplars, a text file of descriptions, or preferences.

    python -m pipelines.music exemplars/                          # DRAGON: the set shall sound like the folder
    python -m pipelines.music descriptions.txt --pairs rows.jsonl # … like the texts say, through a CLAP
    python -m pipelines.music preferences.jsonl                   # DPO on {"prompt", "chosen", "rejected"}, sound files
    python -m pipelines.music exemplars/ --objective grpo         # the same distance as credit per clip; or r0
    python -m pipelines.music --resume runs/music                 # goes on after Ctrl-C

Every other word is a change of the run file, as `trainer.steps=50`. By default Stable Audio Open (meant for one GPU of
80 GB); `--config mine.yaml` may name any run file of sound with one reward that has a `reference`. The embedded models:

    python -m pipelines.music assets/exemplars/jig --config configs/quickstart/audio.yaml

Leaves a run directory (`--out`) with a report whose sounds can be played.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import mmalign
from mmalign import errors_as_sentences
from mmalign.core.config import RunFile, is_change, load
from mmalign.core.errors import ConfigError
from mmalign.core.files import require_local
from mmalign.run.train import Finished
from pipelines._command_line import add_folder, change, parser, same_file
from pipelines._printing import tell

CONFIG = Path(__file__).parents[1] / "configs" / "text_to_audio" / "stable_audio_dragon.yaml"
OUT = Path("runs/music")
Objective = Literal["dragon", "grpo", "r0"]

#: The objective, where the run file has another one.
FORMS: dict[Objective, list[str]] = {
    "dragon": ["objective={name: dragon, builder: greedy_swap}"],
    "grpo": ["objective={name: grpo, group_size: 8}", "trainer.prompts_per_step=8", "trainer.steps_per_pass=1"],
    "r0": ["objective={name: r0}"],
}
#: GRPO explores by noise: what it is where the run file's is 0.
NOISE = {"ddpm": ("eta", 1.0), "flow": ("noise_level", 0.6)}
#: R0's few steps keep these of the run file's policy.
KEPT = ("rows", "guidance_scale", "eval_guidance_scale")
PREFERENCES = ["objective={name: dpo, beta: 2000, beta_unit: mean, draws: 2}", "rewards={}"]


def changes_for(run: RunFile, target: str, objective: Objective = "dragon", pairs: str = "") -> list[str]:
    """The changes of a run file that align towards `target`.

    Args:
        run: its reward with a `reference` gets the target.
        target: a folder of sounds, a `.txt` of descriptions, `.safetensors` statistics, or a table of preferences.
        objective: of the first three.
        pairs: captioned sounds that measure the gap between a CLAP's texts and sounds; for descriptions.

    Raises:
        DataError: nothing there.
        ConfigError: descriptions without `pairs`, an objective for preferences, or no reward that can be pointed there.
    """
    place = require_local(target)
    if place.is_file() and place.suffix in (".jsonl", ".parquet", ".csv"):
        if objective != "dragon":
            raise ConfigError(f"--objective {objective}: preferences are learned by DPO; leave it out.")
        return [*PREFERENCES, change("data", {"name": "preferences", "path": str(place), "held_out": 0.1})]
    if place.suffix == ".txt" and not pairs:
        raise ConfigError(
            "--pairs: descriptions are compared with sounds across a CLAP's modality gap; name a JSONL of sounds with "
            "their captions, or none."
        )
    slot = pointed(run, place)
    pair_changes = [change(f"rewards.{slot}.pairs", pairs)] if pairs else []
    return [change(f"rewards.{slot}.reference", place), *pair_changes, *formed(run, objective)]


def pointed(run: RunFile, place: Path) -> str:
    """The reward that can be pointed to `place`."""
    names = [name for name, reward in run.rewards.items() if "reference" in reward]
    if len(names) != 1:
        raise ConfigError(
            f"{place} becomes the `reference` of one reward, and the run file has {', '.join(names) or 'none'} with "
            "one; give it a single `fad` or `kad`."
        )
    reward = run.rewards[names[0]]
    if place.suffix != ".safetensors" and "encoder" not in reward:
        raise ConfigError(
            f"rewards.{names[0]}.encoder: so far the statistics in {reward['reference']} said what listens; for "
            f"{place} name it, as rewards.{names[0]}.encoder={{name: clap, checkpoint: …}}."
        )
    return names[0]


def formed(run: RunFile, objective: Objective) -> list[str]:
    """The changes that give a run file this objective and what its policy needs for it."""
    changes = [] if run.objective["name"] == objective else FORMS[objective]
    policy = run.policy
    knob, level = NOISE.get(policy["name"], ("", 0.0))
    if objective == "grpo" and knob and policy.get(knob) == 0:
        changes = [*changes, f"policy.{knob}={level}"]
    if objective == "r0" and policy["name"] != "few_step":
        settings = {name: policy[name] for name in KEPT if name in policy}
        few = {"name": "few_step", "num_inference_steps": 4, "eval_steps": 4, **settings}
        changes = [*changes, change("policy", few)]
    return changes


def main(config: Path, target: str, objective: Objective, pairs: str, changes: Sequence[str], out: Path) -> Finished:
    """Train towards `target`."""
    towards = changes_for(load(config, changes), target, objective, pairs)
    return mmalign.train(config, [*towards, *changes], out=out)


def resumed(given: argparse.Namespace) -> Finished:
    """Go on as the run's own file says."""
    words = [given.target, given.objective and "--objective", given.pairs and "--pairs", given.config and "--config"]
    if surplus := [word for word in words if word and not is_change(word)]:
        raise ConfigError(f"--resume {given.resume}: goes on as its run.yaml says; leave {', '.join(surplus)} away.")
    changes = [word for word in [given.target, *given.changes] if word]
    return mmalign.train(same_file(given.resume, CONFIG), changes, resume=given.resume)


def read(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    reader = parser(__doc__)
    reader.add_argument("target", nargs="?", default="", help="exemplars, descriptions or preferences")
    reader.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    reader.add_argument("--objective", choices=list(FORMS), help="dragon by default")
    reader.add_argument("--pairs", default="", help="captioned sounds, for descriptions")
    reader.add_argument("--config", type=Path, help="a run file of sound with one reward that has a `reference`")
    add_folder(reader, OUT)
    args = reader.parse_intermixed_args(words)
    if args.resume and args.out:
        reader.error(f"--out {args.out}: a resumed run goes on in its own folder; leave it away")
    if not args.resume and (not args.target or is_change(args.target)):
        reader.error("name a folder of exemplars, a file of descriptions, or preferences")
    return args


if __name__ == "__main__":
    given = read()
    wanted: Objective = given.objective or "dragon"
    with errors_as_sentences():
        if given.resume:
            tell(resumed(given))
        else:
            config, out = given.config or CONFIG, given.out or OUT
            tell(main(config, given.target, wanted, given.pairs, given.changes, out))
