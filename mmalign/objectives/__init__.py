"""What to collect, how much each entry weighs, and the loss: `objectives.get("grpo")`; papers in `PAPERS.md`."""

from mmalign.core.registry import Registry

objectives = Registry("objective", "mmalign.objectives")

__all__ = ["objectives"]
