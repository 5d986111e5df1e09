"""A mean that remembers of how many entries it is."""

from __future__ import annotations

import torch


class Counted(torch.Tensor):
    """A mean, 0-dimensional, that knows of how many `entries` it is: means of parts then make the mean of the whole."""

    entries: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # what is computed from it is a plain tensor

    @classmethod
    def of(cls, values: torch.Tensor, mask: torch.Tensor) -> Counted:
        """The mean of `values` over the entries of `mask`, which are not none."""
        made: Counted = values.detach().float()[mask].mean().as_subclass(cls)
        made.entries = mask.sum()
        return made
