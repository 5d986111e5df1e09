"""Where curves, pictures and sounds go besides the run directory: tensorboard, trackio, wandb, through accelerate."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmalign.core.files import write_beside
from mmalign.core.protocols import Accelerator, Foreign
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Output, Rollout, Scores
from mmalign.evaluation.table import number_text
from mmalign.media.image import to_uint8

WANDB_ID = "wandb_id"
SHOWN = 8  # outputs of a preview


def open_tracker(accelerator: Accelerator, name: str, directory: Path, file: Mapping[str, Any], step: int) -> None:
    """Start the tracker `name` for the run in `directory`, under the directory's own name.

    Args:
        accelerator: whose main process holds the tracker.
        name: of its package.
        directory: of the run; wandb's own name of the run is kept in it.
        file: the run file with every default, which is shown as the run's configuration.
        step: where the run goes on from; above 0 it goes on in the tracker, too, in one run.
    """
    run = directory.resolve().name
    if name == "tensorboard":  # whose run is a folder, and whose configurations are flat
        more: dict[str, Any] = {"purge_step": step + 1} if step else {}  # what was written after that step is hidden
        accelerator.init_trackers(run, config=_flat(file), init_kwargs={name: more})
    elif name == "wandb":
        more = {"name": run, "id": _own_id(accelerator, directory / WANDB_ID, fresh=step == 0), "resume": "allow"}
        accelerator.init_trackers("mmalign", config=dict(file), init_kwargs={name: more})
    else:
        more = {"name": run, "resume": "allow" if step else "never"}
        accelerator.init_trackers("mmalign", config=dict(file), init_kwargs={name: more})


def _own_id(accelerator: Accelerator, file: Path, fresh: bool) -> str:
    """What wandb tells the run apart by, the same when it is resumed; only the main process makes one."""
    if not fresh and file.exists():
        return file.read_text(encoding="utf-8").strip()
    made = uuid.uuid4().hex[:12]
    if accelerator.is_main_process:
        with write_beside(file) as beside:
            beside.write_text(made + "\n", encoding="utf-8")
    return made


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Every entry by its dotted key; what is no number, truth value or text as a text."""
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        name = f"{before}{key}"
        if isinstance(entry, Mapping) and entry:
            flat |= _flat(entry, f"{name}.")
        else:
            flat[name] = entry if isinstance(entry, bool | int | float | str) else str(entry)
    return flat


def show_samples(accelerator: Accelerator, rollout: Rollout, scores: Mapping[str, Scores], step: int) -> None:
    """Show the first outputs with their prompts and scores in every open tracker; the main process calls it."""
    captions = [_caption(rollout, scores, row) for row in range(min(SHOWN, len(rollout)))]
    for tracker in accelerator.trackers:
        show = _SHOWN.get(tracker.name)
        if show is not None and captions:
            show(tracker.tracker, rollout[: len(captions)].output, captions, step)


def _caption(rollout: Rollout, scores: Mapping[str, Scores], row: int) -> str:
    values = [f"{name} {number_text(score.value[row].item())}" for name, score in scores.items()]
    return "  ".join([rollout.prompts[row].text, *values])


def _on_tensorboard(writer: Foreign, output: Output, captions: list[str], step: int) -> None:
    if isinstance(output, Audio):
        for row, sound in enumerate(_sounds(output)):
            writer.add_audio(f"samples/{row:02d}", sound.mean(0, keepdim=True), step, sample_rate=output.rate)
    elif isinstance(output, Tensor):
        writer.add_images("samples/images", to_uint8(output).cpu(), step)
    else:
        captions = [f"{caption}\n\n{text}" for caption, text in zip(captions, output, strict=True)]
    writer.add_text("samples/prompts", "\n\n".join(f"{row}. {text}" for row, text in enumerate(captions)), step)
    writer.flush()


def _on_wandb(run: Foreign, output: Output, captions: list[str], step: int) -> None:
    import wandb

    run.log({"samples": _media(wandb, output, captions)}, step=step)


def _on_trackio(run: Foreign, output: Output, captions: list[str], step: int) -> None:
    import trackio

    shown = _media(trackio, output, captions)
    named = {"samples": shown} if not isinstance(shown, list) else {f"samples/{i}": one for i, one in enumerate(shown)}
    run.log(named, step=step)


def _media(package: Foreign, output: Output, captions: list[str]) -> Foreign:
    """Pictures and sounds in the package's own types, texts as its table."""
    if isinstance(output, Audio):
        pairs = zip(_sounds(output), captions, strict=True)
        return [package.Audio(s.numpy().T, sample_rate=output.rate, caption=caption) for s, caption in pairs]
    if isinstance(output, Tensor):
        pairs = zip(to_uint8(output).cpu(), captions, strict=True)
        return [package.Image(p.permute(1, 2, 0).numpy(), caption=caption) for p, caption in pairs]
    import pandas

    return package.Table(dataframe=pandas.DataFrame({"prompt": captions, "output": list(output)}))


def _sounds(audio: Audio) -> list[Tensor]:
    ends = [None] * len(audio) if audio.mask is None else audio.mask.sum(1).tolist()
    return [s[:, :end].detach().float().cpu().clamp(-1, 1) for s, end in zip(audio.samples, ends, strict=True)]


_SHOWN = {"tensorboard": _on_tensorboard, "wandb": _on_wandb, "trackio": _on_trackio}

__all__ = ["open_tracker", "show_samples"]
