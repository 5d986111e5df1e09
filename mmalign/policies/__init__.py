"""Policies: the maths between an adapter and an objective. One file, one policy; what it can do is its methods."""

from mmalign.core.registry import Registry

policies = Registry("policy", "mmalign.policies", "policies")

__all__ = ["policies"]
