"""The table of coverage adds up statements by folder, as coverage reports them for files."""

from tests.coverage_table import by_folder, table


def test_folders_are_added_up_and_empty_ones_left_out() -> None:
    def file(statements: int, ran: int) -> dict[str, dict[str, int]]:
        return {"summary": {"num_statements": statements, "covered_lines": ran}}

    files = {
        "mmalign/core/types.py": file(30, 30),
        "mmalign/core/rng.py": file(10, 0),
        "mmalign/core/protocols/data.py": file(4, 1),
        "mmalign/rewards/engine/deep/x.py": file(5, 5),
        "mmalign/cli/__init__.py": file(0, 0),
    }
    folders = by_folder(files)
    assert folders["mmalign/core"] == (40, 30) and folders["mmalign/core/protocols"] == (4, 1)
    lines = [line.split() for line in table(folders).splitlines()]
    assert [line[0] for line in lines] == ["mmalign/core", "mmalign/core/protocols", "mmalign/rewards/engine", "all"]
    assert lines[0][1:] == ["30", "of", "40", "75.0%"] and lines[-1][1:] == ["36", "of", "49", "73.5%"]
