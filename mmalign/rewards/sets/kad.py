"""Kernel audio distance of a set of sounds in any encoder: reward `mmd`, whose scale of 100 is already KAD's."""

from mmalign.rewards.sets.mmd import Mmd as Kad

__all__ = ["Kad"]
