"""Are compared pictures of the size, and compared sounds of the rate and length, that the run itself makes?

Headers tell it. Of a checkpoint that is here, its configuration says what it makes; of others only what the run file
says is known before loading, and that all must be alike.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmalign.core.errors import CheckpointError, all_faults
from mmalign.loading.pipelines import Origin, over_base
from mmalign.media.audio import SoundShape
from mmalign.run.checks import check_training


@check_training
def alike(adapter: Any, items: Sequence[Any]) -> None:
    """Every row that differs, the first twenty named."""
    if not hasattr(items, "shapes"):
        return
    found = list(items.shapes())
    if not found:
        return
    judged = _sounds if isinstance(found[0][1], SoundShape) else _pictures
    if faults := judged(adapter, found):
        raise all_faults(faults)


def _pictures(adapter: Any, found: Sequence[tuple[str, Any]]) -> list[str]:
    native = native_size(adapter) or (None, None)
    sides = [getattr(adapter, side, None) or getattr(adapter, "resolution", None) for side in ("height", "width")]
    wanted, why = tuple(side or own for side, own in zip(sides, native, strict=True)), "the run makes"
    if None in wanted:
        wanted, why = Counter(shape for _, shape in found).most_common(1)[0][0], "most others are"
    return [
        f"{place}: a picture of {shape[1]} x {shape[0]} (width x height), but {why} {wanted[1]} x {wanted[0]}."
        for place, shape in found
        if shape != wanted
    ]


def _sounds(adapter: Any, found: Sequence[tuple[str, SoundShape]]) -> list[str]:
    config = _config(adapter, "vae") | _config(adapter, "vocoder")
    rate, why = config.get("sampling_rate"), "the run's are"
    if not isinstance(rate, int):
        rate, why = Counter(shape.rate for _, shape in found).most_common(1)[0][0], "most others are"
    channels = config.get("audio_channels", 1 if _config(adapter, "vocoder") else None)
    if not isinstance(channels, int):
        channels = max(Counter(shape.channels for _, shape in found).most_common(1)[0][0], 1)
    seconds = getattr(adapter, "seconds", None)
    faults = []
    for place, shape in found:
        if shape.rate != rate:
            faults.append(f"{place}: a sound at {shape.rate} Hz, but {why} at {rate} Hz; resample it.")
        elif shape.channels not in (1, channels):
            faults.append(f"{place}: a sound of {shape.channels} channels, but {why} of {channels}; mix it.")
        elif seconds and shape.samples > int(seconds * rate):
            faults.append(
                f"{place}: a sound of {shape.samples / rate:g} s, but the run makes {seconds:g} s; raise "
                "adapter.seconds, or cut it."
            )
    counts = {shape.channels for _, shape in found if shape.channels in (1, channels)}
    if len(counts) > 1 and not faults:
        place = next(place for place, shape in found if shape.channels != found[0][1].channels)
        faults.append(f"{place}: a sound of other channels than {found[0][0]}; mix or repeat them to one number.")
    return faults


def native_size(adapter: Any) -> tuple[int, int] | None:
    """(height, width) that the checkpoint was trained at, where its files are here and say so."""
    network = _config(adapter, "transformer") or _config(adapter, "unet")
    size, blocks = network.get("sample_size"), _config(adapter, "vae").get("block_out_channels")
    if not blocks or not isinstance(blocks, list):
        return None
    sides = (size, size) if isinstance(size, int) else size
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(isinstance(side, int) for side in sides)):
        return None
    scale = 2 ** (len(blocks) - 1)
    return sides[0] * scale, sides[1] * scale


def _config(adapter: Any, component: str) -> dict[str, Any]:
    """The component's configuration, {} where there is none to be read; loading says what is wrong with one."""
    model = getattr(adapter, "model", None)
    if not isinstance(model, str) or not model:
        return {}
    try:
        folder = over_base(Origin(model)).folder_of(component)
    except CheckpointError:
        return {}
    file = Path(folder or "") / "config.json"
    if folder is None or not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
