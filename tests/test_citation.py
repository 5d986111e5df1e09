"""The citation file says what the package says of itself."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_it_is_a_citation_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors", "version"} <= set(
        cited
    )  # what the format requires, and a version
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["title"].startswith(f"{project['name']}:") and cited["authors"][0]["name"]
