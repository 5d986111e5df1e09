"""The registries by the plural that people type."""

from __future__ import annotations

from mmalign.adapters import adapters
from mmalign.annotators import annotators
from mmalign.core.registry import Registry
from mmalign.data import data_sources
from mmalign.objectives import objectives
from mmalign.policies import policies
from mmalign.rewards import rewards
from mmalign.rewards.combine import combinations

REGISTRIES: dict[str, Registry] = {
    "adapters": adapters,
    "policies": policies,
    "rewards": rewards,
    "combinations": combinations,
    "objectives": objectives,
    "data": data_sources,
    "annotators": annotators,
}
