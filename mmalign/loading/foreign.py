"""Names for objects of diffusers and transformers in annotations.

A checkpoint decides which attributes they have: the components of a pipeline, the entries of a config, the layers of a
network. No class declares these, and mypy does not follow the two libraries, so to every checker each name is Any; to
the reader it says which class is meant.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Pipeline: TypeAlias = Any  # a `diffusers.DiffusionPipeline`; its components are attributes
Scheduler: TypeAlias = Any  # a `diffusers.SchedulerMixin`
PretrainedModel: TypeAlias = Any  # a `diffusers.ModelMixin` or `transformers.PreTrainedModel`, or a part of one
ModelConfig: TypeAlias = Any  # a `transformers.PretrainedConfig`
Tokenizer: TypeAlias = Any  # a `transformers.PreTrainedTokenizerBase`
Processor: TypeAlias = Any  # a `transformers.ProcessorMixin`
Cache: TypeAlias = Any  # a `transformers.Cache`: keys and values of what was read; None before anything was

__all__ = ["Cache", "ModelConfig", "Pipeline", "PretrainedModel", "Processor", "Scheduler", "Tokenizer"]
