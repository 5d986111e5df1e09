"""How far a run is, in the terminal and on the page that is served while it goes."""

from __future__ import annotations

import html
import http.client
import json
import math
import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from mmalign.evaluation.live import LivePage, server
from mmalign.evaluation.progress import in_words, progress_of
from mmalign.evaluation.run_record import read_numbers, read_run
from mmalign.evaluation.watch import sample_scores, sparkline, view, watched_curves
from tests.chromium import opened
from tests.evaluation.runs import make_run


def note(run: Path, pid: int, host: str = "") -> None:
    (run / "in_use.json").write_text(json.dumps({"pid": pid, "host": host or platform.node(), "since": "now"}))


@pytest.fixture
def going(tmp_path: Path) -> Path:
    """A run of 60 steps that has made 40, which this process writes."""
    run = make_run(tmp_path / "going")
    (run / "summary.json").unlink()
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(text + "trainer: {steps: 60, evaluate_every: 10, preview_every: 20}\n")
    note(run, os.getpid())
    return run


def test_time_left_is_that_of_the_steps_and_evaluations_that_are_left(going: Path) -> None:
    record = read_numbers(going)
    assert record.before is not None
    record.before.seconds = 7.0
    progress = progress_of(record)
    assert (progress.state, progress.step, progress.steps, progress.step_seconds) == ("running", 40, 60, 3.0)
    assert progress.left == 20 * 3.0 + (2 + 1) * 7.0  # evaluations after steps 50, 60, and the last one
    assert progress.sentence == "Running: step 40 of 60, about 1 min 21 s left."
    record.metrics.clear()
    assert progress_of(record).left is None and progress_of(record).sentence == "Running: step 0 of 60."


def test_a_run_that_writes_its_last_report_has_ended_and_one_that_goes_on_with_more_steps_has_not(going: Path) -> None:
    summed_up = make_run(going.parent / "other") / "summary.json"
    (going / "summary.json").write_text(summed_up.read_text())
    assert progress_of(read_numbers(going)).state == "running"  # 40 steps of 60: an older summary
    (going / "run.yaml").write_text((going / "run.yaml").read_text().replace("steps: 60", "steps: 40"))
    assert progress_of(read_numbers(going)).sentence == "Finished after 40 steps."


def test_a_note_of_a_process_that_is_gone_is_no_run(going: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    note(going, gone.pid)
    stopped = progress_of(read_numbers(going))
    assert (stopped.state, stopped.left) == ("stopped", None)
    assert stopped.sentence == "Not running: it ended at step 40 of 60, before its last evaluation."
    note(going, gone.pid, "elsewhere")
    assert progress_of(read_numbers(going)).state == "running"  # what another machine says is believed
    (going / "in_use.json").write_text("{")
    assert progress_of(read_numbers(going)).state == "stopped"
    done = progress_of(read_run(make_run(going.parent / "done")))
    assert done.state == "finished" and done.sentence == "Finished after 40 steps."
    assert [in_words(s) for s in (9.54, 61, 3700)] == ["9.5 s", "1 min 1 s", "1 h 1 min"]


def test_sparklines_go_from_the_lowest_bar_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█" and sparkline([3.0, 3.0]) == "▁▁" and sparkline([]) == ""
    assert sparkline([0, math.nan, 7]) == "▁ █"
    assert sparkline([float(i) for i in range(1000)], 8) == "▁▂▃▄▅▆▇█"


def test_it_shows_curves_samples_and_alarms(going: Path) -> None:
    (going / "alarms.jsonl").write_text(
        "".join(f'{{"step": {i}, "kind": "kl", "about": "kl", "text": "warning [{i}]"}}\n' for i in range(7))
    )
    record = read_numbers(going)
    assert [name for name, _ in watched_curves(record)] == ["reward/clip", "eval/clip", "eval/truth", "grad/norm"]
    step, names, rows = sample_scores(record)
    assert (step, names, len(rows)) == (40, ["clip", "truth"], 4) and rows[1][1] == ["0.970", "1.000"]
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(view(record))
    told = console.export_text()
    assert "Running: step 40 of 60" in told and "━" * 40 + "┄" * 20 in told
    assert "2 earlier ones" in told and "step 6: warning [6]" in told and "step 1: warning" not in told
    (going / "samples" / "step_000040" / "rows.parquet").write_bytes(b"half a file")
    assert sample_scores(read_numbers(going))[0] == 20


@pytest.fixture
def serving(going: Path) -> Iterator[int]:
    with server(going, "127.0.0.1", 0) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made.server_port
        made.shutdown()


def asked(port: int, path: str, host: str = "localhost") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_server_answers_this_machine_and_reads_nothing_else(serving: int, going: Path) -> None:
    status, page = asked(serving, "/")
    assert status == 200 and b"Running: step 40 of 60" in page and "connect-src 'self'" in html.unescape(page.decode())
    for path in ("/run.yaml", "/../run.yaml", "/page/../../run.yaml", "/%2e%2e/run.yaml", "//etc/passwd"):
        assert asked(serving, path)[0] == 404
    assert asked(serving, "/", "evil.example")[0] == asked(serving, "/state", "evil.example:7860")[0] == 403
    first = json.loads(asked(serving, "/state")[1])
    assert first["version"].encode() in page and first["state"] == "running"
    with (going / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "reward/clip": 0.9}\n')
    second = json.loads(asked(serving, "/state")[1])
    assert second["version"] != first["version"] and "step 41 of 60" in second["sentence"]


def test_a_page_is_made_once_per_state(going: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LivePage(going)
    first = live.page()
    monkeypatch.setattr("mmalign.evaluation.live.report_html", lambda *_, **__: "anew")
    assert live.page() is first
    (going / "alarms.jsonl").write_text("")
    assert live.page() == b"anew"


@pytest.mark.slow
def test_in_a_browser_the_page_follows_the_run(serving: int, going: Path) -> None:
    with opened() as page:
        page.open(f"http://127.0.0.1:{serving}/")
        page.run("document.querySelector('input[value=slide]').click()")
        assert "step 40 of 60" in page.run("document.querySelector('.progress').textContent")
        with (going / "metrics.jsonl").open("a") as file:
            file.write('{"step": 50, "reward/clip": 0.9, "time/collect": 2.0}\n')
        page.wait("document.querySelector('progress').value === 50")
        assert page.run("document.querySelector('input[value=slide]').checked && !!document.querySelector('.over')")
        assert page.faults == []
