"""What a model card says besides results and loading lines: licences, data, metrics for the Hub, samples, warnings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.core.files import local_path
from mmalign.core.types import Modality
from mmalign.evaluation.loading_lines import is_hub_id, name_of, plain_name
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.run_record import RunRecord
from mmalign.evaluation.verdict import verdict

__all__ = ["Gallery", "Sample", "data_names", "gallery_of", "hacking", "intended_use", "licence_of", "model_index"]

OURS = "apache-2.0"  # of what comes with mmalign's repository
MOST_SAMPLES, MOST_LETTERS = 4, 300
SUFFIX: dict[Modality, str] = {"image": ".png", "audio": ".wav", "text": ""}
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Sample:
    """One held-out prompt with what was made of it before and after: a text, or a file; "" where it was not kept."""

    prompt: str
    before: str
    after: str


@dataclass
class Gallery:
    """Samples whose files are named as they lie beside the card; `files` says where each lies now."""

    modality: Modality = "text"
    samples: list[Sample] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Copy the files to where the card names them."""
        for name, source in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)


def licence_of(model: str, kind: str = "model") -> str:
    """The licence that a model or data set says it has, as the Hub abbreviates it; "" where nothing here says so.

    Read from the YAML header of its README.md: in its folder, or of a Hub id in the local cache. Nothing is downloaded.
    """
    if model.startswith("assets/"):
        return OURS
    folder = local_path(model)
    readme = folder / "README.md" if folder is not None and folder.is_dir() else _cached_readme(model, kind)
    if readme is None or not readme.is_file():
        return ""
    import yaml

    with readme.open("rb") as file:
        text = file.read(200_000).decode("utf-8", errors="replace").replace("\r\n", "\n")
    header_text = _FRONT.match(text)
    try:
        header = yaml.safe_load(header_text.group(1)) if header_text else {}
    except yaml.YAMLError:
        return ""
    licence = header.get("license") if isinstance(header, dict) else None
    return licence if isinstance(licence, str) and re.fullmatch(r"[\w.+-]{1,60}", licence) else ""


def _cached_readme(model: str, kind: str) -> Path | None:
    if not is_hub_id(model):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "README.md", repo_type=kind)
    return Path(cached) if isinstance(cached, str) else None


def data_names(run: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What was trained and measured on: data sets of the Hub, and files by their names."""
    data = run.get("data") or {}
    values = [str(data[key]) for key in ("repo", "path", "held_out_path") if data.get(key)]
    hub = [value for value in values if is_hub_id(value) and "." not in value.rpartition("/")[2][-6:]]
    files = [
        plain_name(value) if value.startswith("assets/") else name_of(value) for value in values if value not in hub
    ]
    return hub, files or ([] if hub else [str(data["name"])] if data.get("name") else [])


def model_index(record: RunRecord, name: str, task: str) -> list[dict[str, Any]]:
    """The measured means after training, as the Hub's `model-index`; [] where nothing was measured."""
    rows = [row for row in record.summary if row.after == row.after]
    if not rows:
        return []
    hub, files = data_names(record.run)
    own = str((record.run.get("data") or {}).get("held_out_path") or "")
    held_out = f"held-out prompts of {plain_name(own) if own else ', '.join([*hub, *files]) or 'the run'}"
    metrics = [
        {"type": row.name, "name": f"{row.name} ({row.role}), mean of {row.n} rows", "value": round(row.after, 6)}
        for row in rows
    ]
    dataset = {"name": held_out, "type": hub[0] if hub else "held-out"}
    return [{"name": name, "results": [{"task": {"type": task or "other"}, "dataset": dataset, "metrics": metrics}]}]


def gallery_of(record: RunRecord) -> Gallery:
    """The first held-out prompts in file order with their outputs, before and after."""
    sides = {"before": record.before, "after": record.after}
    after = record.after
    if after is None:
        return Gallery()
    before = record.before
    if before is not None and [p.question for p in before.prompts] != [p.question for p in after.prompts]:
        sides["before"] = None
    gallery = Gallery(after.modality)
    for row in range(min(MOST_SAMPLES, after.kept)):
        names = {name: _shown(side, row, name, gallery) for name, side in sides.items()}
        gallery.samples.append(Sample(_cut(after.prompts[row].shown), names["before"], names["after"]))
    return gallery


def _shown(evaluation: Evaluation | None, row: int, side: str, gallery: Gallery) -> str:
    if evaluation is None or row >= evaluation.kept:
        return ""
    if evaluation.modality == "text":
        return _cut(str(evaluation.outputs[row]))
    name = f"gallery/{row:04d}_{side}{SUFFIX[evaluation.modality]}"
    gallery.files[name] = evaluation.files[row]
    return name


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…"


def hacking(record: RunRecord) -> list[str]:
    """Sentences on reward hacking: the verdict, and what alarms said."""
    sentence = verdict(record.summary)[1]
    lines = [sentence] if sentence else ["Nothing was measured on held-out prompts, so that nothing is known of it."]
    looked = (record.run.get("trainer") or {}).get("alarms", "say") != "none"
    if record.alarms:
        lines += [f"Alarm at step {alarm['step']}: {alarm['text']}" for alarm in record.alarms]
    elif record.metrics:
        lines.append("No alarm was raised during training." if looked else "Alarms were turned off during training.")
    return lines


def intended_use(record: RunRecord, task: str) -> str:
    """For what it was made, as far as the run tells, and what was not looked at."""
    hub, files = data_names(record.run)
    of = ", ".join([*hub, *files])
    prompts = f" on prompts like those of {of}" if of else ""
    rows = max((row.n for row in record.summary), default=0)
    measured = f"Measured on {rows} held-out rows; beyond them" if rows else "Not measured; of other prompts"
    return (
        f"For {task or 'research'}{prompts}, where more of what its rewards measure is wanted. {measured} nothing is "
        "known. Safety, bias and rights in what it makes were not examined: what holds of the base model holds here."
    )
