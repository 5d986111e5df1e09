"""The pages of `mmalign demo` in headless Chromium: votes by keys, a text that is scored, and what cannot be read."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmalign.demo.pairs import open_pairs
from mmalign.demo.votes import Votes, a_stands_left
from mmalign.run.load import Trained
from tests.chromium import opened, require_chromium
from tests.evaluation.runs import make_run

pytest.importorskip("gradio", reason="skipped: needs the extra demo")


@contextmanager
def served(blocks: Any) -> Iterator[str]:
    from mmalign.demo.serving import launching

    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **launching())
    try:
        yield url
    finally:
        blocks.close()


@pytest.mark.slow
def test_votes_by_keys(tmp_path: Path) -> None:
    require_chromium()
    from mmalign.demo.compare_page import compare_page

    one, two = (make_run(tmp_path / name, made=i) for i, name in enumerate(("one", "two")))
    pairs = open_pairs(two, str(one))
    votes = Votes(tmp_path / "votes.sqlite", pairs.about)
    with served(compare_page(pairs, votes, tmp_path / "liked")) as url, opened() as page:
        page.look(1280)
        page.open(url)
        number = "document.querySelector('#asked')?.previousElementSibling.textContent"
        page.wait(f"{number} === '1 of 6'")
        for i, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowLeft"), 2):
            page.press(key)
            page.wait(f"{number} === '{i} of 6'")
        page.press("Backspace")
        page.wait(f"{number} === '4 of 6'")
        left = [a_stands_left("anonymous", pair) for pair in range(2)]
        assert [vote.choice for vote in votes.all()] == ["a" if left[0] else "b", "b" if left[1] else "a", "tie"]
        text = "document.body.innerText"
        assert "A is one" not in page.run(text)  # nobody knows before they ask
        page.run("[...document.querySelectorAll('button')].find(b => b.textContent.includes('Results:')).click()")
        page.wait("!!document.getElementById('show-results')")
        page.run("document.getElementById('show-results').click()")
        page.wait(f"{text}.includes('A is one, B is two.')")
        assert "3 votes of 1 voter on 3 pairs" in page.run(text) and "No pair was seen by two voters" in page.run(text)
        page.run("document.getElementById('export').click()")
        page.wait(f"{text}.includes('data: {{name: preferences')".replace("{{", "{"))
        assert len((tmp_path / "liked" / "rows.jsonl").read_text().splitlines()) == 3
        page.run("document.querySelector('label input, label textarea').focus()")
        page.press("ArrowLeft")  # inside a field it moves the cursor
        assert page.run(number) == "4 of 6" and len(votes.all()) == 3


@pytest.mark.slow
def test_a_run_is_played_and_something_is_scored_and_files_stay_closed(run: Trained, finished: Path) -> None:
    require_chromium()
    from mmalign.demo.page import page as demo_page

    with served(demo_page(run, "tiny")) as url, opened() as page:
        for path in (finished / "run.yaml", Path(__file__), Path("/etc/hostname")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}gradio_api/file={path}", timeout=30)
            assert refused.value.code in (403, 404)
        page.look(1280)
        page.open(url)
        button = "[...document.querySelectorAll('button')].find(b => b.textContent.trim() === 'Generate')"
        page.wait(f"!!{button}")
        page.run(f"{button}.click()")
        page.wait("document.querySelectorAll('.grid-wrap img, .gallery img, .thumbnail-item img').length >= 8")
        assert "crisp" in page.wait("document.body.innerText.includes('crisp') && document.body.innerText")
        assert "One request at a time" in page.run("document.body.innerText")
        page.run(
            "[...document.querySelectorAll('button[role=tab]')].find(b => b.textContent.includes('Score')).click()"
        )
        page.wait("!!document.querySelector('#score')?.offsetParent")
        page.run("document.querySelector('#score').click()")
        page.wait("document.body.innerText.includes('bring a picture')")
