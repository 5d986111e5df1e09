"""Every fault of a run at once: sections, components, fit, packages, rows; what cannot be judged is said once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmalign.core.config import draft
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.run.build import examine
from mmalign.run.checks import CHECKS, stages
from mmalign.run.notes import notes
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
    waiting = {fault.partition(":")[0] for fault in faults[5:] if fault.endswith(" checks wait until that is mended.")}
    assert len(waiting) == len(faults) - 5 and {"fit", "rows"} <= waiting <= set(stages())
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


def test_an_objective_without_the_rewards_it_follows(run_file: RunFile) -> None:
    with pytest.raises(ConfigError, match=r"rewards: objective 'r0' needs at least one reward") as caught:
        examine(draft(run_file(), ["objective={name: r0, samples_per_prompt: x}", "rewards={}"]))
    assert "objective.samples_per_prompt: must be a whole number (got 'x')" in str(caught.value)


def test_velocities_are_asked_of_a_flow_alone(run_file: RunFile) -> None:
    option = "objective={name: grpo, group_size: 4, beta: 0.1, divergence: velocity}"
    examine(draft(run_file(), [option, "policy={name: flow, num_inference_steps: 4}"]))
    for policy in ("{name: ddpm, num_inference_steps: 4}", "{name: tokens}"):
        with pytest.raises((CapabilityError, ConfigError), match=r"objective\.divergence 'velocity' compares the velo"):
            examine(draft(run_file(), [option, f"policy={policy}"]))


@dataclass
class Documented:
    """An adapter with less than the protocol's members."""

    predict = reference = encode = unconditional = guide = schedule = level = decode = latents = save = print
    device = None
    modality = "image"
    prediction = "flow"


def test_an_adapter_that_lacks_members_is_refused_before_it_loads(run_file: RunFile) -> None:
    changes = ["adapter={name: 'tests.run.test_all_faults:Documented'}"]
    with pytest.raises(
        CapabilityError, match=r"adapter 'tests.*': lacks load, restore, trainable, wrap of LatentAdapter"
    ):
        examine(draft(run_file(), changes), allow=["tests.run"])


def test_a_published_clip_without_its_unit_is_noted(run_file: RunFile) -> None:
    small = "objective={name: grpo, group_size: 4, clip: 1.0e-4}"
    (said,) = notes(examine(draft(run_file(), [small]))[0])
    assert said.startswith("objective.clip: 0.0001 nats of the whole step;") and "clip_unit: mean" in said
    meant = small.replace("}", ", clip_unit: mean}")
    (said,) = notes(examine(draft(run_file(), [meant]))[0])
    assert said.startswith(
        "trainer.max_grad_norm: 1 is for the gradient of a whole step's log-prob; where clip_unit: me"
    )
    assert notes(examine(draft(run_file(), [meant, "trainer.max_grad_norm=0"]))[0]) == []
    with pytest.raises(ConfigError, match=r"objective.clip: 3.0 is no mean-space value .*; set clip_unit: nats"):
        examine(draft(run_file(), [meant.replace("1.0e-4", "3.0")]))


@pytest.mark.parametrize("inner", ["clip", "{}", "[1]", "{name: 5}"])
def test_a_part_of_a_reward_needs_a_name(run_file: RunFile, inner: str) -> None:
    change = f"rewards.crisp={{name: through, inner: {inner}, generator: {inner}}}"
    with pytest.raises(ConfigError, match=r"rewards\.crisp\.(inner|generator)"):
        examine(draft(run_file(), [change]))
