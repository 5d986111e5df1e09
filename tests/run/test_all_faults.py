"""Every fault of a run at once: sections, components, fit, packages, rows; what cannot be judged is said once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.core.config import draft
from mmalign.core.errors import ConfigError
from mmalign.run.build import examine
from mmalign.run.checks import CHECKS, stages
from mmalign.run.train import train

RunFile = Callable[..., Path]


def test_five_faults_of_five_tiers_come_in_one_message(run_file: RunFile, tmp_path: Path) -> None:
    changes = [
        "trainer.lr=fast",
        "rewards.crisp.wieght=3",
        "policy={name: few_step}",
        "trainer.tracker=wandb",
        "data.path=nope.txt",
    ]
    with pytest.raises(ConfigError) as caught:
        examine(draft(run_file(), changes))
    faults = caught.value.faults
    for part in (
        "run.yaml: trainer.lr: must be a number (got 'fast')",
        "run.yaml: rewards.crisp.wieght: unknown option.",
        "objective 'grpo' drives a StepPolicy; policy 'few_step' lacks",
        "trainer.tracker: wandb needs the 'track' extra: pip install 'mmalign[track]'",
        "nope.txt",
    ):
        assert sum(part in fault for fault in faults) == 1, f"{part}\n--- in ---\n{caught.value}"
    waiting = [re.sub(r"\d+ of \d+", "n of m", fault) for fault in faults[5:]]
    assert waiting == [f"{stage}: n of m checks wait until that is mended." for stage in ("fit", "rows")]
    with pytest.raises(ConfigError, match=r"(?s)trainer\.lr.*nope\.txt"):
        train(run_file(), changes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_stage_has_checks() -> None:
    names = set(stages())
    assert {each.stage for each in CHECKS} == names and all(each.look.__doc__ for each in CHECKS)


def test_a_folder_is_no_package(run_file: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=r"^trainer.tracker: wandb needs the 'track' extra"):
        examine(draft(run_file(), ["trainer.tracker=wandb"]))


def test_a_negative_prompt_that_nothing_reads_is_a_fault(run_file: RunFile) -> None:
    asked = ["adapter.negative_prompt=blurry", "policy.guidance_scale=1"]
    with pytest.raises(ConfigError, match=r"adapter.negative_prompt: is not read at policy.guidance_scale 1"):
        examine(draft(run_file(), asked))
    examine(draft(run_file(), [asked[0], "policy.guidance_scale=4"]))
    examine(draft(run_file(), [*asked, "policy.eval_guidance_scale=4"]))
