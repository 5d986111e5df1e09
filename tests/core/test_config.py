"""Every fault of a run file at once, with its place and a suggestion."""

from pathlib import Path
from typing import Any

import pytest

from mmalign.core.config import dump, load, parse
from mmalign.core.errors import ConfigError

GOOD = """
adapter: {name: sd3, model: somewhere}
policy: {name: flow}
rewards: {truth: {name: verifier}}
objective: {name: grpo}
data: {name: prompts, path: p.txt}
trainer: {steps: 3, lr: 3e-4}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_a_good_file_loads_and_its_dump_loads_to_the_same(tmp_path: Path) -> None:
    run = load(write(tmp_path, GOOD))
    assert run.trainer.lr == pytest.approx(3e-4)  # YAML 1.1 reads 3e-4 as text; the field's type makes it a number
    again = load(write(tmp_path, dump(run)))
    assert again.to_dict() == run.to_dict() and "base" not in dump(run)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    text = """
    adaptr: {name: sd3}
    policy: flow
    rewards: {truth: verifier}
    objective: {name: grpo}
    trainer: {stepz: 3, lr: big, ema: 0.5}
    """
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    message = str(caught.value)
    for part in (
        "adaptr: unknown section. Did you mean 'adapter'?",
        "adapter: missing section.",
        "data: missing section.",
        "policy: write a mapping with a `name`",
        "rewards.truth: write a mapping with a `name`, e.g. {name: clip} (got 'verifier').",
        "trainer.stepz: unknown option. Did you mean 'steps'?",
        "trainer.lr: must be a number (got 'big')",
    ):
        assert part in message, part
    assert len(caught.value.faults) == 7


def test_values_out_of_range_are_sentences() -> None:
    raw = {k: {"name": "x"} for k in ("adapter", "policy", "objective", "data")}
    with pytest.raises(ConfigError) as caught:
        parse({**raw, "trainer": {"steps": 0, "ema": 1, "lr": float("nan")}, "evaluation": {"count": -1, "rows": 0}})
    assert caught.value.faults == [
        "trainer.steps: must be at least 1 (got 0)",
        "trainer.lr: must be a finite number (got nan)",
        "trainer.ema: must be below 1 (got 1)",
        "evaluation.count: must be at least 0 (got -1)",
        "evaluation.rows: must be at least 1 (got 0)",
    ]


@pytest.mark.parametrize(
    "options",
    [
        *(
            {name: -1}
            for name in (
                "micro_batch_size",
                "steps_per_pass",
                "warmup",
                "weight_decay",
                "max_grad_norm",
                "preview_every",
            )
        ),
        {"keep": 0},  # would remove the checkpoint just written
        {"lr": "inf"},
        {"betas": [2, 3]},
        {"stop_on_failed_scores": 7},
    ],
)
def test_absurd_numbers_of_the_trainer_are_refused(options: dict[str, Any]) -> None:
    raw = {k: {"name": "x"} for k in ("adapter", "policy", "objective", "data")}
    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(options))}[.01]*: must be"):
        parse({**raw, "trainer": options})


def test_a_key_written_twice_is_a_fault_not_a_choice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml:8:1: not valid YAML: 'trainer' is written twice"):
        load(write(tmp_path, GOOD + "trainer: {steps: 5}\n"))
    shared = "evaluation: &shared {rows: 8, seed: 4}\ntrainer: {<<: *shared, rows: 2}\n"
    trainer = load(write(tmp_path, GOOD.replace("trainer:", "#") + shared)).trainer
    assert (trainer.micro_batch_size, trainer.seed) == (2, 4)  # a merged key may be overridden


def test_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml:2:\d+: not valid YAML"):
        load(write(tmp_path, "adapter: {name: sd3\npolicy: ]"))
    with pytest.raises(ConfigError, match="no such run file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="a run file is a mapping of sections: adapter, policy"):
        load(write(tmp_path, "- 1"))


def test_overrides_reach_new_and_old_keys(tmp_path: Path) -> None:
    run = load(write(tmp_path, GOOD), ["trainer.steps=7", "objective.clip=0.1", "rewards.truth.weight=2"])
    assert run.trainer.steps == 7
    assert run.objective["clip"] == 0.1
    assert run.rewards["truth"]["weight"] == 2
    with pytest.raises(ConfigError, match=r"override 'trainer.steps': write key.path=value"):
        load(write(tmp_path, GOOD), ["trainer.steps"])
    with pytest.raises(ConfigError, match=r"override 'trainer.lr=\[1': not valid YAML: expected ',' or '\]'"):
        load(write(tmp_path, GOOD), ["trainer.lr=[1"])
    with pytest.raises(ConfigError, match=r"'trainer.steps' is not a section"):
        load(write(tmp_path, GOOD), ["trainer.steps.x=1"])


def test_a_run_file_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(write(tmp_path, "adapter: !!python/object/apply:os.system ['true']"))
