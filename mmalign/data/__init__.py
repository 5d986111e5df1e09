"""Where prompts and preferences come from: a source is a file of this folder, `data: {name: prompts, path: …}`.

A source is a dataclass with `training_items()` and `held_out_items()`, both sequences of `Prompt` or `Preference`;
`mmalign.data._batches.Batches` turns the former into an endless, resumable stream.
"""

from mmalign.core.registry import Registry

sources = Registry("data", "mmalign.data", "data")

__all__ = ["sources"]
