"""What a policy or adapter can do, told by its members: the protocols of `mmalign.core.protocols` at run time."""

from __future__ import annotations

from typing import TypeGuard

from mmalign.core.protocols import Policy, ScorePolicy, Weights


def members(capability: type) -> list[str]:
    """The methods that `capability` adds to a policy, computed from the protocol itself."""
    names = {name for cls in capability.__mro__ if cls is not Weights for name in vars(cls) if not name.startswith("_")}
    return sorted(names)


def methods(protocol: type) -> list[str]:
    """What is called of a part that follows `protocol`: its methods, without its data."""
    return [name for name in members(protocol) if any(callable(vars(cls).get(name)) for cls in protocol.__mro__)]


def offers(policy: object, capability: type) -> bool:
    """Does the policy (a class or an instance) have every method of `capability`?"""
    return all(hasattr(policy, name) for name in members(capability))


def judges_only(policy: object) -> TypeGuard[ScorePolicy]:
    """Does the policy (a class or an instance) score outputs, and generate none?"""
    return offers(policy, ScorePolicy) and not generates(policy)


def generates(policy: object) -> TypeGuard[Policy]:
    """Does the policy (a class or an instance) generate outputs?"""
    return hasattr(policy, "generate")


__all__ = ["generates", "judges_only", "members", "methods", "offers"]
