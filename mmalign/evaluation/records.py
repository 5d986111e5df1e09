"""What one evaluation found, row by row, and the folder it lives in.

evaluation.json    seed, rows, repeats, seconds, modality; per set reward its value and resamples
rows.jsonl         one line per row: prompt, group, meta, output (text, or the file of a kept one), scores
outputs/           the first outputs: 0000.png … or 0000.wav …
asked/             the pictures that the first prompts are about, if they are about any
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mmalign.core.errors import DataError, MmalignError
from mmalign.core.files import write_folder_beside
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Modality, Output, Prompt, Scores, Status
from mmalign.evaluation.bootstrap import Interval, centred_interval, mean_interval
from mmalign.media.audio import read_audio, write_audio
from mmalign.media.image import read_pixels, read_pixels_of, to_uint8, write_image

__all__ = ["Evaluation", "RowScores", "SetValue"]

KEPT_PICTURES = 12  # of prompts: what a report shows


@dataclass
class SetValue:
    """A set reward's value over the `n` rows that it could embed, and over resamples of the prompts.

    Paired evaluations share their resamples. `invalid` rows could not be embedded.
    """

    value: float
    resampled: Float[np.ndarray, " R"]
    n: int
    invalid: int = 0


@dataclass
class RowScores:
    """One reward's values (B,), float32, NaN where no score exists, with their `Status` and named parts."""

    value: Float[np.ndarray, " B"]
    status: Int[np.ndarray, " B"]
    parts: dict[str, Float[np.ndarray, " B"]] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Scores) -> RowScores:
        """Return the scores of the reward as arrays."""
        parts = {name: part.float().numpy() for name, part in scores.parts.items()}
        return cls(scores.value.float().numpy(), scores.status.numpy(), parts)

    @property
    def valid(self) -> Bool[np.ndarray, " B"]:
        """Rows that have a value, as `Scores.valid`."""
        return (self.status == Status.OK) | (self.status == Status.PARSE_FAIL)


@dataclass
class Evaluation:
    """A policy's outputs on B rows (prompts x repeats) and what each reward says of them, without PyTorch.

    `outputs` holds the first K rows only (every row for text): uint8 pictures (K, 3, H, W), `Audio`, or strings.
    `files` are those of the outputs, of one that was loaded; of sounds, for pictures of them, they are enough.
    `prompt_pictures` are those that the first prompts are about, uint8 (3, H, W) by row, of one that was loaded; its
    prompts have no media. Two evaluations with equal prompts, seed and repeats were generated from the same noise.
    """

    modality: Modality
    prompts: list[Prompt]
    group: Int[np.ndarray, " B"]
    scores: dict[str, RowScores]
    sets: dict[str, SetValue]
    outputs: Any
    seed: int
    rows: int
    repeats: int
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    prompt_pictures: dict[int, UInt8[np.ndarray, "3 _ _"]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """K, how many rows have an output at hand; a sound is in its file."""
        return len(self.files if self.modality == "audio" else self.outputs)

    def names(self) -> list[str]:
        """Every reward, row rewards first."""
        return [*self.scores, *self.sets]

    def values(self, name: str) -> Float[np.ndarray, " B"]:
        """One row reward's values as float64, NaN where none exists."""
        scores = self.scores[name]
        return np.where(scores.valid, scores.value, np.nan).astype(np.float64)

    def interval(self, name: str) -> Interval:
        """Return the reward's mean (or set value) with its 95 % interval, resampling prompts."""
        if name in self.sets:
            value = self.sets[name]
            return centred_interval(value.value, value.resampled.astype(np.float64), value.n)
        return mean_interval(self.values(name), self.group)

    def means(self) -> dict[str, float]:
        """Every reward's mean over the rows that have a score (or its set value), NaN if none has."""
        rows = {name: self.values(name) for name in self.scores}
        means = {n: float(v[~np.isnan(v)].mean()) if (~np.isnan(v)).any() else math.nan for n, v in rows.items()}
        return means | {name: each.value for name, each in self.sets.items()}

    def save(self, folder: Path | str) -> None:
        """Write this as `folder`, replacing what was there; whole or not at all.

        Facts in `Prompt.meta` that JSON cannot hold are written as their `repr`.
        """
        _save(self, folder)

    @classmethod
    def load(cls, folder: Path | str, outputs: bool = True, sounds: bool = True) -> Evaluation:
        """Return what `save` wrote; without `outputs` and pictures asked about, only its numbers and texts.

        Without `sounds`, outputs that are sounds stay in their `files`.

        Raises:
            DataError: a file is missing or not what was written; names it, with the line.
        """
        return _load(Path(folder), outputs, sounds)

    def invalid(self, name: str) -> int:
        """Rows without a score, or that a set reward could not embed."""
        return self.sets[name].invalid if name in self.sets else int((~self.scores[name].valid).sum())


def _save(evaluation: Evaluation, folder: Path | str) -> None:
    with write_folder_beside(Path(folder)) as beside:
        files = _write_outputs(evaluation.outputs, beside / "outputs")
        plain = ("modality", "seed", "rows", "repeats", "seconds", "extra")
        head = {
            **{name: getattr(evaluation, name) for name in plain},
            "count": len(evaluation.prompts),
            "rewards": list(evaluation.scores),
            "sets": {
                name: {
                    "value": _number(set_value.value),
                    "n": set_value.n,
                    "invalid": set_value.invalid,
                    "resampled": [_number(value) for value in set_value.resampled.tolist()],
                }
                for name, set_value in evaluation.sets.items()
            },
        }
        (beside / "evaluation.json").write_text(json.dumps(head, indent=1, default=repr) + "\n", encoding="utf-8")
        files += [None] * (len(evaluation.prompts) - len(files))
        pictures = _write_prompt_pictures(evaluation, beside / "asked")
        rows = (_row(evaluation, i, file) | pictures.get(i, {}) for i, file in enumerate(files))
        lines = [json.dumps(row, ensure_ascii=False, default=repr) for row in rows]
        (beside / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_outputs(outputs: Output | np.ndarray, folder: Path) -> list[str | None]:
    if isinstance(outputs, list):
        return list(outputs)
    folder.mkdir()
    names: list[str | None] = []
    for i in range(len(outputs)):
        names.append(f"outputs/{i:04d}{'.wav' if isinstance(outputs, Audio) else '.png'}")
        if isinstance(outputs, Audio):
            length = outputs.samples.shape[2] if outputs.mask is None else int(outputs.mask[i].sum())
            write_audio(outputs.samples[i, :, :length], outputs.rate, folder.parent / str(names[-1]))
        else:
            write_image(outputs[i], folder.parent / str(names[-1]))
    return names


def _pictures_of(prompts: list[Prompt]) -> dict[int, UInt8[np.ndarray, "3 _ _"]]:
    """The first picture of each of the first prompts, by row."""
    pictures = {}
    for i, prompt in enumerate(prompts[:KEPT_PICTURES]):
        for value in prompt.media.values():
            if isinstance(value, Tensor) and value.dim() == 3 and value.shape[0] == 3 and i not in pictures:
                pictures[i] = to_uint8(value).numpy()
    return pictures


def _write_prompt_pictures(evaluation: Evaluation, folder: Path) -> dict[int, dict[str, str]]:
    """What a row says of the picture it is about, by row."""
    pictures = evaluation.prompt_pictures or _pictures_of(evaluation.prompts)
    for i, picture in pictures.items():
        folder.mkdir(exist_ok=True)
        write_image(picture, folder / f"{i:04d}.png")
    return {i: {"asked": f"asked/{i:04d}.png"} for i in pictures}


def _row(evaluation: Evaluation, i: int, file: str | None) -> dict[str, Any]:
    prompt = evaluation.prompts[i]
    scores = {
        name: {
            "value": _number(s.value[i].item()),
            "status": Status(int(s.status[i])).label,
            "parts": {part: _number(v[i].item()) for part, v in s.parts.items()},
        }
        for name, s in evaluation.scores.items()
    }
    return {
        "prompt": prompt.text,
        **({"messages": list(prompt.messages)} if prompt.messages else {}),
        **({"tools": list(prompt.tools)} if prompt.tools else {}),
        "group": int(evaluation.group[i]),
        "meta": dict(prompt.meta),
        "output": file,
        "scores": scores,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _load(folder: Path, outputs: bool, sounds: bool) -> Evaluation:
    try:
        return _read(folder, outputs, sounds)
    except (MmalignError, MemoryError):
        raise
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); is {folder} an evaluation?") from None
    except Exception as error:  # JSON of another kind than was written
        raise DataError(f"{folder}: not an evaluation as it was written: {error!r}.") from None


def _read(folder: Path, outputs: bool, sounds: bool) -> Evaluation:
    try:
        head = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        sets = {
            name: SetValue(_value(s["value"]), _floats(s["resampled"]), s["n"], s.get("invalid", 0))
            for name, s in head["sets"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'evaluation.json'}: not an evaluation's head: {error!r}.") from None
    lines = _text(folder / "rows.jsonl").split("\n")
    rows = [_parsed(line, folder / "rows.jsonl", i, head["rewards"]) for i, line in enumerate(lines, 1) if line]
    if not rows or len(rows) != head.get("count", len(rows)):  # older ones do not say how many
        raise DataError(f"{folder / 'rows.jsonl'}: holds {len(rows)} of {head.get('count', 'its')} rows.")
    names = [row["output"] for row in rows if row["output"] is not None]
    shown = head["modality"] == "text" or (outputs and (sounds or head["modality"] != "audio"))
    return Evaluation(
        modality=head["modality"],
        prompts=[
            Prompt(row["prompt"], meta=row["meta"], messages=row.get("messages", ()), tools=row.get("tools", ()))
            for row in rows
        ],
        group=np.array([row["group"] for row in rows], dtype=np.int64),
        scores={name: _scores([row["scores"][name] for row in rows]) for name in head["rewards"]},
        sets=sets,
        outputs=_read_outputs(folder, names, head["modality"]) if shown else [],
        prompt_pictures={
            i: read_pixels(folder / row["asked"]) for i, row in enumerate(rows) if outputs and row.get("asked")
        },
        files=[] if head["modality"] == "text" else [folder / name for name in names],
        **{key: head[key] for key in ("seed", "rows", "repeats", "seconds", "extra")},
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file ({error.reason} at byte {error.start}).") from None


def _parsed(line: str, file: Path, number: int, rewards: list[str]) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        for key in ("prompt", "group", "meta", "output"):
            row[key]
        for name in rewards:
            row["scores"][name]["value"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file}:{number}: not a row of an evaluation: {error!r}.") from None
    return row


def _scores(cells: list[Mapping[str, Any]]) -> RowScores:
    parts = dict.fromkeys(part for cell in cells for part in cell["parts"])
    return RowScores(
        value=_floats([cell["value"] for cell in cells]),
        status=np.array([Status[cell["status"].upper()] for cell in cells], dtype=np.int8),
        parts={part: _floats([cell["parts"].get(part) for cell in cells]) for part in parts},
    )


def _floats(numbers: list[float | None]) -> Float[np.ndarray, " N"]:
    return np.array([_value(number) for number in numbers], dtype=np.float32)


def _value(number: float | None) -> float:
    return math.nan if number is None else number


def _read_outputs(folder: Path, names: list[str], modality: Modality) -> Any:
    if modality == "text":
        return names
    if modality == "image":
        return read_pixels_of([folder / name for name in names]) if names else np.empty(0, dtype=np.uint8)
    import torch

    clips = [read_audio(folder / name) for name in names]
    longest = max((samples.shape[1] for samples, _ in clips), default=0)
    padded = [torch.nn.functional.pad(samples, (0, longest - samples.shape[1])) for samples, _ in clips]
    mask = torch.stack([torch.arange(longest) < samples.shape[1] for samples, _ in clips]) if clips else None
    return Audio(torch.stack(padded) if clips else torch.empty(0, 1, 0), clips[0][1] if clips else 1, mask)
