"""A day by the command line alone: train, watch, stop, resume, compare, vote, train on the votes, share."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign.demo.votes import a_stands_left
from tests.chromium import Page, opened, require_chromium
from tests.run.stand_in_hub import stand_in

ROOT = Path(__file__).parents[2]
PAIRS = 20
#: What makes a ready run file small: rows of 4 in place of 128, steps of sampling, and the judge that is slow to load.
SMALL = [
    *("adapter.train=lora", "adapter.lora.rank=4", "policy.num_inference_steps=3", "policy.window_size=2"),
    *("policy.eval_steps=2", "objective.group_size=2", "trainer.prompts_per_step=2", "trainer.minibatches=1"),
    *("trainer.lr=1e-3", "trainer.preview_every=0", f"evaluation.count={PAIRS}", f"evaluation.keep={PAIRS}"),
    "evaluation.judges={verifier: {name: verifier, role: verifier}, small: {name: compressibility}}",
]
VOTED = """
adapter: {{name: sd3, model: {model}, start_lora: runs/second, lora: {{rank: 4, alpha: 8}}, freeze_start: true,
          max_sequence_length: 1, text_encoder_3: false}}
policy: {{name: flow, num_inference_steps: 3, eval_steps: 2}}
objective: {{name: dpo, beta: 0.1}}
{data}
trainer: {{steps: 2, prompts_per_step: 4, lr: 1.0e-3}}
evaluation: {{prompts: {prompts}, count: 4, judges: {{verifier: {{name: verifier, role: verifier}}}}}}
"""


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "mmalign", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(true: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "never so"
        time.sleep(0.2)


def steps_of(run: Path) -> list[int]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line["step"] for line in map(json.loads, lines) if "lr" in line]


def vote(page: Page, url: str, liked: str) -> None:
    """All pairs by keys, for the side that `liked` names wherever it stands; every fifth is a tie; then the export."""
    page.look(1280)
    page.open(url)
    number = "document.querySelector('#asked')?.previousElementSibling.textContent"
    for done in range(PAIRS):
        page.wait(f"{number} === '{done + 1} of {PAIRS}'")
        left = a_stands_left("anonymous", done) == (liked == "a")
        page.press("ArrowDown" if done % 5 == 4 else "ArrowLeft" if left else "ArrowRight")
    page.wait(f"document.body.innerText.includes('You have seen all {PAIRS} pairs')")
    page.run("[...document.querySelectorAll('button')].find(b => b.textContent.includes('Results:')).click()")
    page.wait("!!document.getElementById('export')")
    page.run("document.getElementById('export').click()")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute of one processor
@pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")  # within huggingface_hub
def test_a_day(tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="skipped: needs the extra demo")
    require_chromium()
    monkeypatch.chdir(tmp_path)
    first, second = Path("runs/first"), Path("runs/second")

    def done(*words: Any) -> str:
        code, out, err = call(*words)
        assert code == 0, out + err
        return str(out)

    # trained, watched, stopped by Ctrl-C, resumed by the command that the last line names
    with running("train", "scenes/grpo_verifier", "--out", str(first), "trainer.steps=500", *SMALL) as process:
        until(lambda: steps_of(first) or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        seen = done("watch", first, "--once")
        assert re.search(r"step \d+ of 500", seen), seen
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    stopped = re.search(r"stopped; `mmalign (train --resume \S+)` goes on after step (\d+) of 500", said)
    assert stopped is not None, said
    last = int(stopped[2]) + 1
    assert f"it ended at step {stopped[2]} of 500" in " ".join(done("watch", first, "--once").split())
    done(*shlex.split(stopped[1]), f"trainer.steps={last}")
    assert steps_of(first) == list(range(1, last + 1))
    assert f"Finished after {last} steps" in done("watch", first, "--once")

    # compared with another run
    done("train", "scenes/grpo_verifier", "--out", second, "trainer.steps=2", "trainer.seed=1", *SMALL)
    told = done("compare", first, second)
    assert "second against first" in told and "page: runs/second/compared/first.html" in told
    assert "each pair was made from the same noise" in Path("runs/second/compared/first.html").read_text()

    # 20 pairs voted on, exported, and trained on
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running("demo", str(second), "--against", str(first), "--port", str(port)), opened() as page:
        until(lambda: _listens(port))
        vote(page, f"http://127.0.0.1:{port}/", liked="b")
        text = "document.body.innerText"
        page.wait(f"{text}.includes('data: {{name: preferences')".replace("{{", "{"))
        line = re.search(r"data: \{name: preferences[^\n]*\}", page.run(text))
    assert line is not None
    rows = [json.loads(row) for row in (second / "votes/first_preferences/rows.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows].count(0.5) == PAIRS // 5 and len(rows) == PAIRS
    assert all(row["chosen"].startswith("b/") for row in rows if row["label"] == 1)
    prompts = ROOT / "assets/prompts/scenes_heldout.txt"
    Path("voted.yaml").write_text(VOTED.format(model=ROOT / "assets/scenes_sd3", data=line[0], prompts=prompts))
    done("train", "voted.yaml")
    losses = [json.loads(row) for row in Path("runs/voted/metrics.jsonl").read_text().splitlines()]
    assert steps_of(Path("runs/voted")) == [1, 2] and losses

    # its card, and what arrives at the Hub
    card = Path("runs/voted/README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert "dpo" in header["tags"] and header["model-index"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    with stand_in() as hub:
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", hub.url, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        listed = done("push", "runs/voted", "me/voted")
        assert "Nothing was sent" in listed and hub.asked == []
        assert f"{hub.url}/me/voted" in done("push", "runs/voted", "me/voted", "--yes")
    assert hub.created[0]["visibility"] == "private" and "pytorch_lora_weights.safetensors" in hub.files
    assert hub.files["README.md"].decode().splitlines()[0] == "---"


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
