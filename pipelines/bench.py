"""Rewards side by side on held-out near misses: `python -m pipelines.bench`.

It writes `assets/results/selection/bench.json`.

Rows are the requests of `comparisons_heldout.jsonl`: a right caption and three that differ from it in one attribute,
count or relation. Judges of pictures are shown the scenes that these captions describe, drawn anew, and the caption is
the prompt; judges of texts read the captions. The near prompt of a row, for which the right output is wrong, is its
first wrong caption (of texts an everyday wording of it). `bmas` has the right caption as its reference. `clap` judges
tunes in the same way, of the captions in `tunes_heldout.txt`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from mmalign.core.config import draft
from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.types import Audio, Prompt
from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.colloquial import colloquial
from mmalign.miniworld.grammar import sample_scene
from mmalign.miniworld.language import parse
from mmalign.miniworld.scenes import render
from mmalign.run.judge import judge_reward, measured
from pipelines._command_line import parser
from pipelines.results import keep

PICTURES: dict[str, dict[str, Any]] = {
    "clip": {"name": "clip", "checkpoint": "assets/scenes_clip"},
    "judge_clip": {"name": "clip", "checkpoint": "assets/scenes_judge"},
    "yes_no": {"name": "yes_no", "checkpoint": "assets/scenes_vlm"},
    "align_evaluator": {"name": "align_evaluator", "checkpoint": "assets/scenes_vlm", "points": {"name": "scenes"}},
}
ENSEMBLE = ("clip", "judge_clip", "yes_no")
ROWS = 128
RESULT = Path("assets/results/selection/bench.json")
RULES = ("accuracy", "best_of_4", "c_res", "c_ins", "mrr")


def rows_of(pictures: bool, count: int = ROWS) -> Iterator[Prompt]:
    """The rows of the bench: outputs are `pictures` of the captions, or the captions."""
    lines = asset_path("prompts/comparisons_heldout.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    for number, line in enumerate(lines):
        row, rng = json.loads(line), np.random.default_rng([31, number])
        captions = [row["chosen"], *row["rejected"]]
        outputs: list[Any] = captions
        if pictures:
            scenes = [sample_scene(parse(text), rng) for text in captions]
            outputs = [torch.from_numpy(render(scene, rng)) for scene in scenes]
        near = captions[1] if pictures else colloquial(parse(captions[1]), rng)
        facts = {"chosen": outputs[:1], "rejected": outputs[1:]}
        if pictures:
            yield Prompt(captions[0], meta=facts | {"near": near})
        else:
            other = {"prompt": near, "meta": {"references": captions[1]}}
            yield Prompt(row["prompt"], meta=facts | {"references": captions[0], "near": other})


def tunes(count: int = ROWS) -> Iterator[Prompt]:
    """Tunes of held-out captions, each with three of near misses."""
    from mmalign.miniworld.tunes import grammar, language, rendering
    from mmalign.miniworld.tunes.tune import RATE

    lines = asset_path("prompts/tunes_heldout.txt").read_text(encoding="utf-8").splitlines()[:count]
    for number, line in enumerate(lines):
        rng, request = np.random.default_rng([37, number]), language.parse(line)
        wrong = grammar.hard_negatives(request, 3, rng)
        played = [rendering.render(grammar.sample_tune(each, rng), rng) for each in (request, *wrong)]
        sounds = [Audio(torch.from_numpy(sound)[None, None], RATE) for sound in played]
        yield Prompt(line, meta={"chosen": sounds[:1], "rejected": sounds[1:], "near": wrong[0].text})


def ensemble() -> Any:
    """The mean of three judges of pictures, each on [0, 1]."""
    from mmalign.rewards import Mix, Slot, load_reward
    from mmalign.rewards.combine import combinations

    slots = {name: Slot(load_reward(**PICTURES[name])) for name in ENSEMBLE}
    return Mix(slots, combinations.build({"name": "ensemble", "scale": "raw"}, "combine"))


def fitted(folder: Path) -> str:
    """A reward model, fitted by `scenes/reward_model` (about a minute); its run directory."""
    from mmalign.run.train import train

    train(draft("configs/scenes/reward_model.yaml", ["evaluation.count=8"]).file, out=folder)
    return str(folder)


def swapped() -> Iterator[Prompt]:
    """Captions of two things, against the same with the things in each other's place."""
    lines = asset_path("prompts/comparisons_heldout.jsonl").read_text(encoding="utf-8").splitlines()
    for caption in (json.loads(line)["chosen"] for line in lines):
        if (relation := parse(caption).relation) is not None:
            first, second = caption.split(f" {relation} ")
            if first != second:
                other = f"{second} {relation} {first}"
                yield Prompt(caption, meta={"chosen": [caption], "rejected": [other], "references": caption})


def made(name: str, model: Path) -> Any:
    """The reward of that name."""
    from mmalign.rewards import load_reward

    if name == "ensemble":
        return ensemble()
    if name == "reward_model":
        return load_reward("reward_model", model=fitted(model))
    others = {"clap": "assets/tunes_clap", "bmas": "assets/scenes_clip"}
    return load_reward(name, checkpoint=others[name]) if name in others else load_reward(**PICTURES[name])


def entry(name: str, model: Path) -> dict[str, Any]:
    """What a reward came to on its rows."""
    start, reward = time.perf_counter(), made(name, model)
    judges = "pictures" if name in PICTURES or name == "ensemble" else "sounds" if name == "clap" else "texts"
    rows = list(tunes()) if judges == "sounds" else list(rows_of(judges == "pictures"))
    found = measured(judge_reward(name, reward, rows))
    own = {rule: found[rule] for rule in RULES}
    if name == "bmas":
        own["swapped"] = measured(judge_reward(name, reward, list(swapped())))["accuracy"]
    return {"name": name, "judges": judges, **own, "seconds": time.perf_counter() - start}


def table(content: dict[str, Any]) -> str:
    """The table of docs/results.md."""

    def cell(of: dict[str, float]) -> str:
        return f"{of['value']:.3f} ({of['low']:.3f} to {of['high']:.3f})"

    rules = [rule for rule in RULES if rule != "c_res"]  # of one right answer it is the accuracy
    lines = [
        "| reward | judges | rows |" + "".join(f" {rule} |" for rule in rules),
        "|---|---|---|" + "---|" * len(rules),
    ]
    for own in content["rewards"]:
        cells = "".join(f" {cell(own[rule])} |" for rule in rules)
        lines.append(f"| {own['name']} | {own['judges']} | {own['accuracy']['n']} |{cells}")
        if "swapped" in own:
            blank = " |" * (len(rules) - 1)
            lines.append(
                f"| {own['name']}, things swapped | texts | {own['swapped']['n']} | {cell(own['swapped'])} |{blank}"
            )
    return "\n".join(lines) + "\n"


def main(names: Sequence[str], out: Path = RESULT, model: Path = Path("runs/bench_reward_model")) -> None:
    """Measure rewards (all where none is named) and write the JSON with command and commit.

    Args:
        names: rewards; those in the JSON that are not named stay.
        out: the JSON.
        model: where the reward model is fitted.
    """
    every = (*PICTURES, "ensemble", "clap", "bmas", "reward_model")
    if unknown := [name for name in names or () if name not in every]:
        raise ConfigError(f"'{unknown[0]}' is not on the bench.{did_you_mean(unknown[0], every)}")
    code = commit()
    content = json.loads(out.read_text(encoding="utf-8")) if names and out.is_file() else {"rewards": []}
    found = {own["name"]: own for own in content["rewards"]}
    for name in names or every:
        found[name] = {**entry(name, model), "commit": code}
        shown = "  ".join(f"{rule} {found[name][rule]['value']:.3f}" for rule in RULES)
        print(f"{name:16} {shown}  ({found[name]['seconds']:.0f} s)", flush=True)
        content = {"command": "python -m pipelines.bench", "rewards": [found[one] for one in every if one in found]}
        keep(out, content)


if __name__ == "__main__":
    reader = parser(__doc__)
    reader.add_argument("names", nargs="*", metavar="REWARD", help="rewards; all where none is named")
    reader.add_argument("--out", type=Path, default=RESULT, help="the JSON to write; %(default)s")
    reader.add_argument("--model", type=Path, default=Path("runs/bench_reward_model"), help="the reward model's run")
    given = reader.parse_intermixed_args()
    with errors_as_sentences():
        main(given.names, given.out, given.model)
