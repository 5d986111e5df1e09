"""The bench: its rows are what they say, and the page's table and falsifier are those of the committed JSON."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from mmalign.miniworld.language import holds, parse
from mmalign.miniworld.verifier import read_scene
from pipelines.bench import rows_of, swapped, table

ROOT = Path(__file__).parents[2]
CONTENT = json.loads((ROOT / "assets/results/selection/bench.json").read_text(encoding="utf-8"))


def test_the_page_has_the_table_of_the_file() -> None:
    assert table(CONTENT) in (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert CONTENT["command"] == "python -m pipelines.bench"
    assert all(own["commit"].isalnum() for own in CONTENT["rewards"])  # of a tree as it was committed


def test_bmas_cannot_tell_things_in_each_others_place() -> None:
    """It is documented as blind to order: half of the pairs, to the last digit."""
    bmas = next(own for own in CONTENT["rewards"] if own["name"] == "bmas")
    assert bmas["swapped"]["value"] == 0.5 and bmas["swapped"]["n"] > 50
    for row in swapped():
        assert sorted(row.text.split()) == sorted(row.meta["rejected"][0].split()) and row.meta["rejected"] != [
            row.text
        ]


def test_pictures_show_their_captions_and_no_near_miss() -> None:
    for row in islice(rows_of(pictures=True), 8):
        right, wrong = (read_scene(picture.numpy()) for picture in (row.meta["chosen"][0], row.meta["rejected"][0]))
        assert all(holds(right, parse(row.text))) and not all(holds(wrong, parse(row.text)))
        assert all(holds(wrong, parse(row.meta["near"])))
