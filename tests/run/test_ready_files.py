"""Every ready run file, and that of an earlier run, means what it says: no key is lost, or read as something else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign.cli.listing import configs
from mmalign.core.config import dump, load, parse
from mmalign.core.renamed import with_new_names
from mmalign.run.build import build

EARLIER = {"an earlier run": Path(__file__).parent / "earlier_run" / "run.yaml"}
FILES = configs() | EARLIER
CHANGES = {"text_to_audio/stable_audio_dragon": f"rewards.style.reference={__file__}"}  # sounds of one's own


def options(raw: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a run file by its dotted key."""
    if isinstance(raw, Mapping) and raw:
        for key, value in raw.items():
            yield from options(value, f"{at}.{key}" if at else str(key))
    else:
        yield at, list(raw) if isinstance(raw, tuple) else raw


@pytest.mark.parametrize("name", FILES)
def test_a_run_file_means_what_it_says(name: str, caplog: pytest.LogCaptureFixture) -> None:
    raw = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        run = load(FILES[name], [CHANGES[name]] if name in CHANGES else [])
        filled = build(run).filled()
    assert len(caplog.records) <= (1 if name in EARLIER else 0), caplog.text
    resolved = dict(options(yaml.safe_load(dump(filled))))
    written = dict(options(with_new_names(raw)[0]))
    ignored = {"base", *(change.partition("=")[0] for change in [CHANGES.get(name, "")])}
    changed = {
        key: (value, resolved.get(key, "gone"))
        for key, value in written.items()
        if key not in ignored and value != {} and not (key in resolved and resolved[key] == value)
    }
    assert changed == {}
    again = build(parse(yaml.safe_load(dump(filled)))).filled()
    assert dict(options(yaml.safe_load(dump(again)))) == resolved
