"""Fréchet audio distance of a set of sounds in any encoder: reward `frechet` under the name that audio knows it by."""

from mmalign.rewards.sets.frechet import Frechet as Fad

__all__ = ["Fad"]
