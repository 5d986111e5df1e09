"""Thresholds by Nelder and Mead: the points that SciPy asks for, one at a time, and a state that is its history."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.rewards.combine import combinations
from mmalign.rewards.combine._threshold_search import Tried, next_point
from mmalign.rewards.combine.lagrangian import Lagrangian
from tests.rewards.doubles import scores


def gold(point: tuple[float, ...]) -> float:
    return -((point[0] - 0.7) ** 2) - 2 * (point[1] - 0.2) ** 2


def test_it_asks_for_the_points_that_scipy_evaluates() -> None:
    simplex = np.array([[0.3, 0.3], [0.4, 0.3], [0.3, 0.4]])
    evaluated: list[tuple[float, ...]] = []

    def loss(point: np.ndarray) -> float:
        evaluated.append(tuple(point.tolist()))
        return -gold(evaluated[-1])

    options = {"initial_simplex": simplex, "xatol": 0.01, "fatol": 0.01}
    minimize(loss, simplex[0], method="Nelder-Mead", options=options)
    tried: Tried = []
    for _ in evaluated:
        point = next_point([0.3, 0.3], 0.1, tried)
        tried.append((point, gold(point)))
    assert [point for point, _ in tried] == evaluated
    best = next_point([0.3, 0.3], 0.1, tried)
    assert best == max(tried, key=lambda each: each[1])[0] and np.allclose(best, [0.7, 0.2], atol=0.08)


def made(**options: object) -> Lagrangian:
    spec = {"name": "lagrangian", "thresholds": {"a": 0.3, "b": 0.3}, "search": "truth", **options}
    combination: Lagrangian = combinations.build(spec, "combine")
    return combination


def test_what_is_held_follows_the_measure_and_survives_a_restart() -> None:
    searching = made()
    held = []
    for number in range(30):
        numbers = {name.partition("/"): float(value) for name, value in searching.metrics().items()}
        now = {name: value for (kind, _, name), value in numbers.items() if kind == "threshold"}
        held.append(now)
        searching.measured(gold(tuple(now.values())))
        if number == 11:
            again = made()
            again.load_state_dict(searching.state_dict())
            assert again.metrics() == searching.metrics() and "/tried" in searching.state_dict()
    assert held[0] == pytest.approx({"a": 0.3, "b": 0.3}) and held[1] == pytest.approx({"a": 0.4, "b": 0.3})
    assert held[-1] == pytest.approx({"a": 0.7, "b": 0.2}, abs=0.08)
    before = searching.metrics()
    searching.measured(float("nan"))
    assert searching.metrics() == before, "a value that says nothing is no try"


def test_multipliers_are_moved_by_what_is_held_now() -> None:
    parts = {"a": scores([0.35] * 4), "b": scores([0.35] * 4)}
    group, weights = torch.zeros(4, dtype=torch.long), {"a": 1.0, "b": 1.0}
    searching = made(multiplier="projected", lr=1.0, momentum=0.0)
    searching(parts, weights, group)
    assert searching.multipliers == {"a": 0.0, "b": 0.0}, "both are above 0.3"
    searching.measured(0.0)  # then a is held at 0.4
    searching(parts, weights, group)
    assert searching.multipliers == pytest.approx({"a": 0.05, "b": 0.0})
    fixed = made(search="")
    assert not any("threshold" in name for name in fixed.metrics())
    with pytest.raises(ConfigError, match="reach must be finite and not 0"):
        made(reach=0.0)


RUN = """
adapter: {name: causal_lm, model: assets/scenes_rewriter, train: lora, device: cpu}
policy: {name: tokens, max_new_tokens: 6}
rewards: {long: {name: length, low: 6}, fresh: {name: length, high: 3, fall: 4}}
combine: {name: lagrangian, thresholds: {fresh: 0.5}, search: brief}
objective: {name: grpo, group_size: 4}
"""


def test_a_run_searches_by_its_evaluations_and_is_resumed_exactly(tmp_path: Path) -> None:
    data, run = tmp_path / "rows.jsonl", tmp_path / "run.yaml"
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    data.write_text("".join(json.dumps({"prompt": f"{n} discs"}) + "\n" for n in words))
    run.write_text(
        f"{RUN}data: {{name: prompts, path: {data}, held_out: 0.5}}\n"
        "trainer: {steps: 4, prompts_per_step: 2, lr: 1.0e-3, save_every: 2, evaluate_every: 1}\n"
        "evaluation: {count: 4, judges: {brief: {name: length, high: 4, fall: 3}}}\n"
    )
    mmalign.train(run, out=tmp_path / "run")
    file = next((tmp_path / "run/checkpoints").glob("*4/state/state.json"))
    state = json.loads(file.read_text())["stateful"]["reward"]
    tried = torch.tensor(state["/tried"]["tensor"])
    assert tried.shape == (3, 2) and tried[:2, 0].tolist() == pytest.approx([0.5, 0.6])
    mmalign.train(tmp_path / "run/run.yaml", resume=f"{tmp_path / 'run'}@2")
    again = next((tmp_path / "run/checkpoints").glob("*4/state/state.json"))
    assert json.loads(again.read_text())["stateful"]["reward"] == state


def test_a_measure_that_nobody_takes_is_refused(tmp_path: Path) -> None:
    data, run = tmp_path / "rows.jsonl", tmp_path / "run.yaml"
    data.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    run.write_text(
        f"{RUN}data: {{name: prompts, path: {data}}}\ntrainer: {{steps: 1, prompts_per_step: 2, lr: 1.0e-3}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        mmalign.train(run, out=tmp_path / "run")
    text = str(caught.value)
    assert "combine.search: 'brief' is no reward or judge of this run; choose from long, fresh." in text
    assert "combine.search: nothing is measured along the way" in text
