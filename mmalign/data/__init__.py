"""Where prompts and preferences come from: a source is a file of this folder, `data: {name: prompts, path: …}`.

A source is a dataclass that follows `mmalign.core.protocols.DataSource`; one that reads a file of rows extends
`mmalign.data.file_source.FileSource`. `mmalign.data.batches.Batches` turns the rows to train on into an endless,
resumable stream.
"""

from mmalign.core.registry import Registry

data_sources = Registry("data", "mmalign.data", "data", families=["sources"])

__all__ = ["data_sources"]
