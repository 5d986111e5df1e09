"""Are compared pictures of the size, and compared sounds of the rate and length, that the run itself makes?

Headers tell it. Of a checkpoint that is here, its configuration says what it makes; of others only what the run file
says is known before its few files of configuration are fetched (`fetched`), and that all must be alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mmalign.adapters.bases.formats import Frame, Heard, Sized, sides_of
from mmalign.core.errors import ConfigError, all_faults
from mmalign.core.protocols import Adapter, AdapterTraits
from mmalign.loading.described import Get, component_config
from mmalign.media.audio import SoundShape
from mmalign.run.checks import Faults, check, check_training


@check
def size(adapter: Adapter) -> Faults:
    """The size of what is made is one that the checkpoint makes, as far as its own folder tells."""
    if isinstance(frame := declared_shape(adapter), Frame):
        try:
            sides_of(cast(Sized, adapter), frame)
        except ConfigError as error:
            yield from [fault if fault.startswith("adapter.") else f"adapter.{fault}" for fault in error.faults]


@check_training
def alike(adapter: Adapter, looked_into: Sequence[Any]) -> None:
    """Raise DataError for the rows that differ, with the places of the first twenty."""
    _hold(adapter, looked_into, "kept")


def fetched(adapter: Adapter, items: Sequence[Any]) -> None:
    """`alike`, once the configuration of a Hub's model may be fetched.

    Raises:
        DataError: the rows that differ.
    """
    if (
        hasattr(items, "shapes")
        and declared_shape(adapter, "kept") is None
        and declared_shape(adapter, "fetch") is not None
    ):
        _hold(adapter, items, "kept")


def declared_shape(adapter: Adapter, get: Get = "here") -> Frame | Heard | None:
    """Return what the adapter's checkpoint makes, where its files of configuration are to be had and say so."""
    describe = getattr(type(adapter), "frame", None) or getattr(type(adapter), "heard", None)
    traits = AdapterTraits.of(adapter)
    model, revision = traits.model, traits.revision
    if describe is None or not isinstance(model, str) or not model:
        return None

    def config(component: str) -> Mapping[str, Any]:
        return component_config(model, component, revision, get)

    try:
        return describe(config)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None  # a file that is missing, or damaged: loading tells


def _hold(adapter: Adapter, items: Sequence[Any], get: Get) -> None:
    if not hasattr(items, "shapes"):
        return
    shapes = list(items.shapes())
    if not shapes:
        return
    makes = declared_shape(adapter, get)
    if isinstance(shapes[0][1], SoundShape):
        faults = _sounds(adapter, makes if isinstance(makes, Heard) else None, shapes)
    else:
        faults = _pictures(adapter, makes if isinstance(makes, Frame) else None, shapes)
    if faults:
        raise all_faults(faults)


def _pictures(adapter: Adapter, makes: Frame | None, shapes: Sequence[tuple[str, Any]]) -> list[str]:
    native = makes.native if makes else (None, None)
    traits = AdapterTraits.of(adapter)
    sides = [side or traits.resolution for side in (traits.height, traits.width)]
    wanted, why = tuple(side or own for side, own in zip(sides, native, strict=True)), "the run makes"
    if None in wanted:
        wanted, why = Counter(shape for _, shape in shapes).most_common(1)[0][0], "most others are"
    return [
        f"{place}: a picture of {shape[1]} x {shape[0]} (width x height), but {why} {wanted[1]} x {wanted[0]}."
        for place, shape in shapes
        if shape != wanted
    ]


def _sounds(adapter: Adapter, makes: Heard | None, shapes: Sequence[tuple[str, SoundShape]]) -> list[str]:
    if makes is not None:
        rate, channels, why = makes.rate, makes.channels, "the run's are"
    else:
        rate, why = Counter(shape.rate for _, shape in shapes).most_common(1)[0][0], "most others are"
        channels = max(Counter(shape.channels for _, shape in shapes).most_common(1)[0][0], 1)
    seconds = AdapterTraits.of(adapter).seconds or (makes.seconds if makes else None)
    faults = []
    for place, shape in shapes:
        if shape.rate != rate:
            faults.append(f"{place}: a sound at {shape.rate} Hz, but {why} at {rate} Hz; resample it.")
        elif shape.channels not in (1, channels):
            faults.append(f"{place}: a sound of {shape.channels} channels, but {why} of {channels}; mix it.")
        elif seconds and shape.samples > int(seconds * rate):
            faults.append(
                f"{place}: a sound of {shape.samples / rate:g} s, but the run makes {seconds:g} s; raise "
                "adapter.seconds, or cut it."
            )
    counts = {shape.channels for _, shape in shapes if shape.channels in (1, channels)}
    if len(counts) > 1 and not faults:
        place = next(place for place, shape in shapes if shape.channels != shapes[0][1].channels)
        faults.append(f"{place}: a sound of other channels than {shapes[0][0]}; mix or repeat them to one number.")
    return faults
