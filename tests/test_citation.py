"""The citation file, the package and the changelog name one release."""

import re
import tomllib
from pathlib import Path

import yaml

import mmalign

ROOT = Path(__file__).parents[1]


def test_it_is_a_citation_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors", "version"} <= set(
        cited
    )  # what the format requires, and a version
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["title"].startswith(f"{project['name']}:") and cited["authors"][0]["name"]
    released = re.findall(
        r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    )
    assert released[0] == (mmalign.__version__, str(cited["date-released"])) and released[0][0] == project["version"]
