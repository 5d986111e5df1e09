"""Names for objects of pyarrow and datasets in annotations.

pyarrow declares no types and datasets few, so to every checker each name is Any; to the reader it says which class is
meant.
"""

from __future__ import annotations

from typing import Any, TypeAlias

ArrowTable: TypeAlias = Any  # a `pyarrow.Table`
ArrowSchema: TypeAlias = Any  # a `pyarrow.Schema`
ArrowType: TypeAlias = Any  # a `pyarrow.DataType`
ParquetFile: TypeAlias = Any  # a `pyarrow.parquet.ParquetFile`
HubDataset: TypeAlias = Any  # a `datasets.Dataset` or `IterableDataset`; of `load_dataset` also a dict of them

__all__ = ["ArrowSchema", "ArrowTable", "ArrowType", "HubDataset", "ParquetFile"]
