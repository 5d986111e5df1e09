"""Runs whose reward is on a server: the same weights as with it in the process, exact resume, faults before loading."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import mmalign
from mmalign.cli.main import application
from mmalign.core.config import load
from mmalign.core.errors import ConfigError, DataError, ScoreError
from mmalign.run.build import examine
from mmalign.run.train import train
from tests.rewards.judges import openai_server as servers
from tests.run.serving.in_thread import serving

OPTIONS: dict[str, Any] = {"low": 1.0, "high": 9.0, "unit": "characters"}
RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{short: {reward}}}
objective: {{name: grpo, group_size: 4}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 3, prompts_per_step: 2, lr: 1.0e-2, save_every: 1, keep: 3}}
evaluation: {{judges: {{brief: {reward}}}}}
"""


@pytest.fixture
def write(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run file whose reward is `reward`."""

    def file(reward: dict[str, object], name: str = "run.yaml") -> Path:
        (tmp_path / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
        path = tmp_path / name
        path.write_text(RUN.format(model=lm_folder("llama"), reward=json.dumps(reward)))
        return path

    return file


@pytest.fixture
def server() -> Iterator[str]:
    rewards = {"len": mmalign.load_reward("length", **OPTIONS), "sharp": mmalign.load_reward("sharpness")}
    with serving({**rewards, "exact": mmalign.load_reward("exact_match")}) as (url, _):
        yield url


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_000003" / "state" / "weights.safetensors")


def test_it_trains_and_resumes_as_with_the_reward_in_the_process(
    write: Callable[..., Path], server: str, tmp_path: Path
) -> None:
    here = train(load(write({"name": "length", **OPTIONS})), out=tmp_path / "here").directory.path
    far = {"name": "remote", "url": server, "served": "len"}
    there = train(load(write(far, "far.yaml")), out=tmp_path / "there").directory.path
    want = weights(here)
    assert all(torch.equal(value, want[name]) for name, value in weights(there).items())
    train(load(there / "run.yaml"), resume=f"{there}@1")
    assert all(torch.equal(value, want[name]) for name, value in weights(there).items())
    lines = [json.loads(line) for line in (there / "metrics.jsonl").read_text().splitlines()]
    assert [line["reward/short/requests"] for line in lines if "lr" in line] == [1, 1, 1]


def test_the_dry_run_asks_what_is_served_and_says_so(write: Callable[..., Path], server: str) -> None:
    file = write({"name": "remote", "url": server, "served": "len"})
    result = CliRunner().invoke(application(), ["train", str(file), "--dry-run"])
    assert result.exit_code == 0, result.output
    for place in ("rewards.short", "evaluation.judges.brief"):
        assert f"# note: {place}: {server} (mmalign " in result.output
    assert "serves 'len': len, of text, from 0 to 1; a row is tried there when a run starts." in result.output


def test_what_does_not_fit_is_said_before_anything_is_loaded(write: Callable[..., Path], server: str) -> None:
    def faults(**options: object) -> str:
        with pytest.raises((ConfigError, DataError, TypeError)) as fault:
            examine(load(write({"name": "remote", "attempts": 1, **options})))
        return str(fault.value)

    assert "rewards.short: judges image, but the policy makes text" in faults(url=server, served="sharp")
    assert "needs the column 'answer'" in faults(url=server, served="exact")
    gone = faults(url="http://127.0.0.1:9", served="len")
    assert "rewards.short.url: " in gone and "evaluation.judges.brief.url: " in gone
    assert "is `mmalign serve` running there?" in gone
    assert "It serves len, sharp, exact" in faults(url=server, served="lne")


def test_a_server_that_fails_ends_the_run_by_its_limit_and_not_before(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    asked: list[int] = []

    def dies_later(handler: servers.BaseHTTPRequestHandler, request: dict[str, object]) -> None:
        asked.append(1)
        servers.send(handler, {"error": "the disk is full"}, 500)

    described = {"reward": "length", "modalities": ["text"], "range": [0.0, 1.0], "identity": None}
    spec = {"mmalign": "1", "protocol": 1, "rewards": {"far": described}, "limits": {"rows": 64, "bytes": 1000000}}
    with servers.serving(dies_later, pages={"spec": spec, "health": {"ok": True}}) as (url, _):
        file = write({"name": "remote", "url": url, "attempts": 1})
        with pytest.raises(ScoreError, match=r"reward 'short' failed on 8 of the last 8 rows.*500: the disk is full"):
            train(load(file), out=tmp_path / "run")
    assert asked
