"""The run files and options that docs/finetune.md shows are those that a run takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import yaml

from mmalign.core.config import parse
from mmalign.policies._surrogate import LevelDraw, Weighting
from mmalign.run.build import build

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")


def test_the_sections_that_are_shown_make_a_run() -> None:
    whole, prior = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
    run = build(parse({**whole, "rewards": {}})).filled()
    assert run.objective["caption_dropout"] == 0.1
    assert build(parse({**whole, **prior, "rewards": {}})).filled().objective["prior_count"] == 200


def test_the_table_of_the_chain_holds_the_figures_of_its_file() -> None:
    measured = json.loads((ROOT / "assets" / "results" / "selection" / "own_style.json").read_text())
    assert chain_table(measured) in PAGE
    pictures, sounds = (100 * mean(row["grpo"]["delta"] for row in measured[kind]) for kind in ("image", "audio"))
    control = 100 * mean(row["control"]["delta"] for row in measured["image"])
    sentences = " ".join(PAGE.split())
    assert f"GRPO adds {pictures:+.1f} to pictures and {sounds:+.1f} to sounds." in sentences
    assert f"in the place of GRPO's: it adds {control:+.1f}" in sentences and min(pictures, sounds) > 10
    assert all(100 * mean(row["sft"]["delta"] for row in measured[kind]) > 20 for kind in ("image", "audio"))


def chain_table(measured: dict[str, Any]) -> str:
    """The rows of the page's table, from what was measured."""
    head = ["", "seed", "untouched", "after imitation", "change", "after GRPO", "change", "instead: more imitation"]
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), "|---" * len(head) + "|"]
    for kind, name in (("image", "pictures"), ("audio", "sounds")):
        for row in measured[kind]:
            sft, grpo = row["sft"], row["grpo"]
            cells = [name, str(row["seed"]), share(sft["before"]), share(sft["after"]), change(sft)]
            control = change(row["control"]) if "control" in row else "–"
            lines.append(f"| {' | '.join([*cells, share(grpo['after']), change(grpo), control])} |")
    return "\n".join(lines)


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def change(row: dict[str, Any]) -> str:
    low, high = row["ci"]
    return f"{100 * row['delta']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def test_every_weighting_and_distribution_of_levels_is_on_the_page_but_the_bound() -> None:
    missing = [name for name in (*get_args(Weighting), *get_args(LevelDraw)) if f"`{name}`" not in PAGE]
    assert missing == ["elbo"]  # the variational bound is no loss that trainers publish


def test_defaults_are_those_of_the_policies() -> None:
    rows = re.findall(r"^\| (flows|ε|v) \([^|]*\| `(\w+)`, `(\w+)`", PAGE, re.M)
    from mmalign.policies.ddpm import Ddpm
    from mmalign.policies.flow import Flow

    assert rows == [
        ("flows", Flow.density_levels, Flow.weighting),
        ("ε", Ddpm.density_levels, Ddpm.weighting),
        ("v", Ddpm.density_levels, Ddpm.weighting),
    ]
