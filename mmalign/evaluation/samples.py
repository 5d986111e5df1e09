"""What a policy makes in the middle of a run, for people: a sheet of pictures or sound files, and a table of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmalign.core.types import Audio, Rollout, Scores, Status
from mmalign.evaluation.table import number_text
from mmalign.media.audio import write_audio
from mmalign.media.image import contact_sheet, write_image
from mmalign.media.spectrogram import spectrogram

__all__ = ["save_samples"]


def save_samples(folder: Path, rollout: Rollout, scores: Mapping[str, Scores]) -> None:
    """Fill `folder` (made if missing) with `rows.parquet` and, by modality, `contact_sheet.png` or `000.wav` … with
    spectrograms `000.png` ….

    The table has one row per output: prompt, group, output (the text, or the file it is in), and per reward its value
    (null where none exists), status and parts. Pictures carry their prompt and scores as captions.
    """
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {
        "prompt": [prompt.shown for prompt in rollout.prompts],
        "group": rollout.group.tolist(),
        "output": _write(folder, rollout, scores),
    }
    for name, judged in scores.items():
        columns[name] = _nullable(judged.value.tolist())
        columns[f"{name}/status"] = [Status(int(status)).label for status in judged.status]
        columns |= {f"{name}/{part}": _nullable(value.tolist()) for part, value in judged.parts.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")


def _write(folder: Path, rollout: Rollout, scores: Mapping[str, Scores]) -> list[str]:
    """The outputs' own files; returns what the table says of each row."""
    output = rollout.output
    if isinstance(output, list):
        return output
    if isinstance(output, Audio):
        names = [f"{i:03d}.wav" for i in range(len(output))]
        for i, name in enumerate(names):
            end = None if output.mask is None else int(output.mask[i].sum())
            sound = output.samples[i, :, :end]
            write_audio(sound, output.rate, folder / name)
            if sound.numel():
                write_image(spectrogram(sound.detach().cpu().numpy(), output.rate), (folder / name).with_suffix(".png"))
        return names
    captions = [
        "\n".join([prompt.shown, *(f"{name} {number_text(judged.value[i].item())}" for name, judged in scores.items())])
        for i, prompt in enumerate(rollout.prompts)
    ]
    write_image(contact_sheet(output, captions), folder / "contact_sheet.png")
    return ["contact_sheet.png"] * len(rollout.prompts)


def _nullable(values: list[float]) -> list[float | None]:
    return [None if value != value else value for value in values]
