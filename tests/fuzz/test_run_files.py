"""A bounded number of the mutations that `python -m tests.fuzz.run_files` makes."""

from __future__ import annotations

import yaml

from mmalign.cli.listing import configs
from tests.fuzz.run_files import beside, case, outcome, ready

CASES = 100


def test_a_run_file_with_a_fault_is_refused_by_a_sentence() -> None:
    runs = ready()
    with beside() as folder:
        ended = {number: outcome(case(number, 7, runs), folder) for number in range(CASES)}
        right = outcome(yaml.safe_dump(runs[list(configs()).index("quickstart/image")]), folder)
    assert not {number: each.wrong for number, each in ended.items() if each.wrong}
    assert {each.code for each in ended.values()} <= {0, 2} and right.code == 0
