"""What a policy or adapter can do, told by its members: the protocols of `mmalign.core.protocols` at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import Policy, ScorePolicy, Weights


def members(capability: type) -> list[str]:
    """Return the methods that `capability` adds to a policy, computed from the protocol itself."""
    names = {name for cls in capability.__mro__ if cls is not Weights for name in vars(cls) if not name.startswith("_")}
    return sorted(names)


def methods(protocol: type) -> list[str]:
    """Return what is called of a part that follows `protocol`: its methods, without its data."""
    return [name for name in members(protocol) if any(callable(vars(cls).get(name)) for cls in protocol.__mro__)]


def data_members(protocol: type) -> set[str]:
    """Return what is read of a part that follows `protocol`: its annotated attributes and its properties."""
    annotated = {name for kind in protocol.__mro__ for name in getattr(kind, "__annotations__", {})}
    properties = {
        name for kind in protocol.__mro__ for name, value in vars(kind).items() if isinstance(value, property)
    }
    return annotated | properties


def lacking(component: object, protocol: type) -> list[str]:
    """Return the members of `protocol` that a component does not have: methods, `__call__`, and data.

    They are looked for in its class, among its options and in what it has set; no property is read, for that may load
    a model. Of an adapter only the data that it has before its weights are asked for.
    """
    data = data_members(protocol)
    if "load" in methods(protocol) or Weights in protocol.__mro__:
        data &= {"modality", "prediction"}
    own = {*getattr(component, "__dataclass_fields__", {}), *getattr(component, "__dict__", {})}
    absent = [name for name in {*methods(protocol), *data} - own if not hasattr(type(component), name)]
    uncalled = "__call__" in vars(protocol) and not callable(component)
    return sorted([*absent, *(["__call__"] if uncalled else [])])


def require_members(component: object, protocols: Sequence[type], what: str) -> None:
    """Raise CapabilityError, with what the component called `what` lacks, unless it follows one of the protocols."""
    absent = {protocol: lacking(component, protocol) for protocol in protocols}
    nearest = min(absent, key=lambda protocol: len(absent[protocol]) / len(lacking(object(), protocol)))
    if absent[nearest]:
        raise CapabilityError(
            f"{what}: lacks {', '.join(absent[nearest])} of {nearest.__name__} ({nearest.__module__}); add "
            f"{'it' if len(absent[nearest]) == 1 else 'them'}."
        )


def offers(policy: object, capability: type) -> bool:
    """Does the policy (a class or an instance) have every method of `capability`?"""
    return all(hasattr(policy, name) for name in members(capability))


def judges_only(policy: object) -> TypeGuard[ScorePolicy]:
    """Does the policy (a class or an instance) score outputs, and generate none?"""
    return offers(policy, ScorePolicy) and not generates(policy)


def generates(policy: object) -> TypeGuard[Policy]:
    """Does the policy (a class or an instance) generate outputs?"""
    return hasattr(policy, "generate")


__all__ = ["data_members", "generates", "judges_only", "lacking", "members", "methods", "offers", "require_members"]
