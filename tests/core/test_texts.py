"""Text files as people save them."""

from pathlib import Path

import pytest

from mmalign.core.errors import DataError, all_faults
from mmalign.core.texts import read_text, text_lines


def test_marks_and_line_ends_of_other_systems_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffzwei Bäume\r\na\u2028b\n".encode())
    assert read_text(file) == "zwei Bäume\na\u2028b\n"
    file.write_bytes(b"a\nein Ger\xe4t\n")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8 text \(.*\); save the file as UTF-8"):
        read_text(file)


def test_lists_have_comments(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeff# header\r\n\r\n  a cat \r\n\\#1 fan\r\n\\back\r\n".encode())
    assert text_lines(file) == [(3, "a cat"), (4, "#1 fan"), (5, "\\back")]


def test_of_many_faults_twenty_are_said() -> None:
    assert str(all_faults(["a", "b"])) == "a\nb"
    lines = str(all_faults([f"fault {i}" for i in range(23)])).split("\n")
    assert len(lines) == 21 and lines[-1] == "… and 3 more."
