"""The registries by the plural that people type."""

from __future__ import annotations

from mmalign.core.registry import Registry

REGISTRIES: dict[str, Registry] = {
    "adapters": Registry("adapter", "mmalign.adapters"),
    "policies": Registry("policy", "mmalign.policies"),
    "rewards": Registry("reward", "mmalign.rewards"),
    "combinations": Registry("combination", "mmalign.rewards.combine"),
    "objectives": Registry("objective", "mmalign.objectives"),
    "data": Registry("data", "mmalign.data"),
}
