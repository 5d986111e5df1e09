"""Where prompts and preferences come from: a source is a file of this folder, `data: {name: prompts, path: …}`.

A source is a dataclass with `training_items()` and `held_out_items()`, both sequences of `Prompt` or `Preference`;
`mmalign.data.batches.Batches` turns the former into an endless, resumable stream.
"""

from mmalign.core.registry import Registry

data_sources = Registry("data", "mmalign.data", "data", families=["sources"])

__all__ = ["data_sources"]
