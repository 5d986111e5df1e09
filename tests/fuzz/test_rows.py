"""A bounded part of the rows' fuzzer; `python -m tests.fuzz.rows --cases 2000` is the whole."""

from pathlib import Path

import pytest

from tests.fuzz.rows import READERS, case, prepared


@pytest.mark.timeout(120)
def test_odd_rows_and_media_are_used_or_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    ends = [case(seed, folder) for seed in range(200)]
    assert {reader for reader, _ in ends} == {make.__name__ for make in READERS}
    used = sum(end == "used" for _, end in ends)
    assert 40 < used < 160  # neither all is refused, nor all is harmless
