"""Outputs whose class in one dimension is known: the files of MRMBench as rows whose features are probed."""

from __future__ import annotations

from pathlib import Path

from mmalign.core.errors import DataError, all_faults, shown
from mmalign.core.texts import parsed, read_text
from mmalign.core.types import Prompt
from mmalign.run.rows import Row, read_output_rows

__all__ = ["LABELLED", "read_probed_rows"]

LABELLED = ("input", "output", "label")  # the columns of MRMBench (2511.12464), read off its public evaluation code


def read_probed_rows(file: Path) -> list[Row]:
    """Rows as `mmalign score` reads them, or those of a file of MRMBench, whose class stands in a column of its own.

    The benchmark keeps a folder for each dimension (`mrm_hard/coherence/train.json`): the column has the folder's name,
    or that in the row's column `dimension`.

    Raises:
        DataError: rows that cannot be read, all at once; a label that is no whole number of at least 0.
    """
    if file.suffix.lower() != ".json" or not file.is_file():
        return read_output_rows(file)
    listed = parsed(read_text(file), str(file))
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{file}: is no list of rows; a file of JSON holds those of MRMBench, {', '.join(LABELLED)}.")
    rows, faults = [], []
    for at, row in enumerate(listed):
        place = f"{file}, row {at}"
        if not isinstance(row, dict) or not set(LABELLED) <= set(row):
            faults.append(f"{place}: lacks {', '.join(LABELLED)}, as MRMBench has them; other rows stand in JSONL.")
            continue
        label, output = row["label"], row["output"]
        if isinstance(label, bool) or not str(label).strip().isdecimal():
            faults.append(f"{place}: 'label' is {shown(label)}; expected the number of a class, from 0.")
        elif not isinstance(row["input"], str) or not isinstance(output, str):
            faults.append(f"{place}: 'input' and 'output' are texts.")
        else:
            dimension = str(row.get("dimension") or file.absolute().parent.name)
            prompt = Prompt(row["input"], meta={dimension: int(label)}, place=place)
            rows.append(Row(prompt, output, prompt.text, place, "text"))
    if faults:
        raise all_faults(faults)
    return rows
