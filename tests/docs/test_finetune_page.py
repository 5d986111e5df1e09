"""The run files and options that docs/finetune.md shows are those that a run takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from mmalign.core.config import parse
from mmalign.policies._surrogate import LevelDraw, Weighting
from mmalign.run.build import build

PAGE = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text(encoding="utf-8")


def test_the_sections_that_are_shown_make_a_run() -> None:
    whole, prior = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
    run = build(parse({**whole, "rewards": {}})).filled()
    assert run.objective["caption_dropout"] == 0.1
    assert build(parse({**whole, **prior, "rewards": {}})).filled().objective["prior_count"] == 200


def test_every_weighting_and_distribution_of_levels_is_on_the_page_but_the_bound() -> None:
    missing = [name for name in (*get_args(Weighting), *get_args(LevelDraw)) if f"`{name}`" not in PAGE]
    assert missing == ["elbo"]  # the variational bound is no loss that trainers publish


def test_defaults_are_those_of_the_policies() -> None:
    rows = re.findall(r"^\| (flows|ε) \([^|]*\| `(\w+)`, `(\w+)` \|", PAGE, re.M)
    from mmalign.policies.ddpm import Ddpm
    from mmalign.policies.flow import Flow

    assert rows == [
        ("flows", Flow.density_levels, Flow.weighting),
        ("ε", Ddpm.density_levels, Ddpm.weighting),
    ]
