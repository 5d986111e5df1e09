"""What the run makes, and given pictures and sounds brought to it: known by headers and configurations alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from mmalign.adapters.bases.formats import Configs, Frame, MakesImages, MakesSounds, Sized, SoundFormat, sides_of
from mmalign.core.config import RunFile
from mmalign.core.errors import ConfigError, all_faults
from mmalign.core.protocols import Adapter, AdapterTraits, DataSource
from mmalign.data.intake import FittedRows, MediaOptions, PictureTarget, refused
from mmalign.data.sampled import sampled
from mmalign.loading.described import Get, component_config
from mmalign.media.audio import SoundShape
from mmalign.media.kinds import NOUNS
from mmalign.media.sound_fit import SoundTarget
from mmalign.run.checks import Faults, check, check_training


@runtime_checkable
class Shaped(Protocol):
    """Rows that are decoded by indexing, and tell before what headers say of their outputs, which are of one `kind`."""

    @property
    def kind(self) -> str:
        """The modality of the outputs."""
        ...

    def shapes(self) -> Iterator[tuple[str, Any]]:
        """Where each output stands, and its shape."""
        ...


@check
def size(adapter: Adapter) -> Faults:
    """The size of what is made is one that the checkpoint makes, as far as its own folder tells."""
    if isinstance(frame := declared_shape(adapter), Frame):
        try:
            sides_of(cast(Sized, adapter), frame)
        except ConfigError as error:
            yield from [fault if fault.startswith("adapter.") else f"adapter.{fault}" for fault in error.faults]


@check
def length(adapter: Adapter) -> Faults:
    """The length of what is made is one that the checkpoint makes, as far as its own folder tells."""
    makes, seconds = declared_shape(adapter), AdapterTraits.of(adapter).seconds
    if isinstance(makes, SoundFormat) and makes.seconds and seconds and seconds > makes.seconds * (1 + 1e-6):
        yield f"adapter.seconds: {seconds:g} is longer than {makes.seconds:g} s, the most that this checkpoint makes."


@check_training
def refused_media(file: RunFile, adapter: Adapter, source: DataSource, items: Sequence[Any]) -> None:
    """Raise DataError for outputs that `fit` or `cut` refuses, with the places of the first twenty."""
    if isinstance(rows := fitted_rows(adapter, source, items, file.trainer.seed), FittedRows) and (
        faults := list(refused(rows))
    ):
        raise all_faults(faults)


def fitted_rows(
    adapter: Adapter, source: object, items: Sequence[Any], seed: int = 0, get: Get = "kept"
) -> Sequence[Any]:
    """The rows with pictures and sounds as the adapter makes them, by the options of `source`; others as they are.

    What it makes, its checkpoint's configuration says, of which `get` tells how it is come by; where nothing says it,
    what most of the rows are (of very many, of those that are looked into).
    """
    if not isinstance(items, Shaped) or items.kind not in NOUNS:
        return items
    declared = declared_shape(adapter, get)
    makes = declared if isinstance(declared, SoundFormat if items.kind == "audio" else Frame) else None
    shapes = list(cast(Shaped, sampled(items)).shapes()) if makes is None else []
    if makes is None and not shapes:  # none can be read, which what reads them tells
        return items
    target = (sound_target if items.kind == "audio" else picture_target)(adapter, cast(Any, makes), shapes)
    options = source if isinstance(source, MediaOptions) else MediaOptions()
    return FittedRows(items, target, options, seed)


def declared_shape(adapter: Adapter, get: Get = "here") -> Frame | SoundFormat | None:
    """Return what the adapter's checkpoint makes, where its files of configuration are to be had and say so."""
    describe: Callable[[Configs], Frame | SoundFormat] | None = None
    if isinstance(adapter, MakesImages):
        describe = adapter.frame
    elif isinstance(adapter, MakesSounds):
        describe = adapter.sound_format
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


def picture_target(adapter: Adapter, makes: Frame | None, shapes: Sequence[tuple[str, Any]]) -> PictureTarget:
    """The size of the adapter's options, or of its checkpoint, or of most pictures."""
    native = makes.native if makes else (None, None)
    traits = AdapterTraits.of(adapter)
    sides = [side or traits.resolution for side in (traits.height, traits.width)]
    height, width = (side or own for side, own in zip(sides, native, strict=True))
    if height is None or width is None:
        height, width = Counter(shape for _, shape in shapes).most_common(1)[0][0]
    return PictureTarget((height, width), makes.multiple if makes else 1)


def sound_target(adapter: Adapter, makes: SoundFormat | None, shapes: Sequence[tuple[str, SoundShape]]) -> SoundTarget:
    """The rate, channels and length of the adapter's options and its checkpoint, or the first two of most sounds."""
    if makes is not None:
        rate, channels = makes.rate, makes.channels
    else:
        rate = Counter(shape.rate for _, shape in shapes).most_common(1)[0][0]
        channels = Counter(shape.channels for _, shape in shapes).most_common(1)[0][0]
    seconds = AdapterTraits.of(adapter).seconds or (makes.seconds if makes else None)
    return SoundTarget(rate, channels, int(seconds * rate) if seconds else None)
