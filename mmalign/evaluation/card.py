"""The README.md of a run directory: what was trained from what, by what, how well, and how others load it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.core.checkpoints import complete
from mmalign.core.errors import ConfigError
from mmalign.core.files import local_path
from mmalign.core.registry import Registry
from mmalign.evaluation.run_record import RunRecord, read_run
from mmalign.evaluation.table import number

__all__ = ["CardFacts", "card", "card_facts"]

PEFT = {  # class and options by task
    "CAUSAL_LM": ("AutoPeftModelForCausalLM", ""),
    "SEQ_CLS": ("AutoPeftModelForSequenceClassification", ", num_labels=1"),
}
REWARD_MODEL = "reward_model"  # the adapter
TASKS = {"image": "text-to-image", "audio": "text-to-audio", "text": "text-generation"}


@dataclass
class CardFacts:
    """What the card and the report say of the trained model."""

    name: str
    base_model: str
    objective: str
    policy: str
    library: str = ""
    task: str = ""
    weights: str = ""
    snippet: str = ""
    tags: list[str] = field(default_factory=list)
    papers: list[str] = field(default_factory=list)
    fitted: bool = False  # a reward model: fitted to preferences, not aligned with rewards


def card(directory: Path | str) -> str:
    """The model card as Markdown with the Hub's YAML header; missing parts of the directory are left out of it.

    Raises:
        DataError: there is no such directory.
    """
    import yaml

    record = read_run(directory)
    facts = card_facts(record)
    header: dict[str, Any] = {"tags": facts.tags}
    if facts.library:
        header["library_name"] = facts.library
    if facts.task:
        header["pipeline_tag"] = facts.task
    if _is_hub_id(facts.base_model):
        header["base_model"] = facts.base_model
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {facts.name}",
        _introduction(facts),
        _results(record),
        _rewards(record.run),
        f"## Load\n\n```python\n{facts.snippet}\n```" if facts.snippet else "",
        _papers(facts),
        _remake(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_facts(record: RunRecord) -> CardFacts:
    """The facts, from the run file and from what the newest checkpoint holds."""
    run = record.run
    names = {key: str((run.get(key) or {}).get("name", "")) for key in ("objective", "policy", "adapter")}
    adapter = run.get("adapter") or {}
    base = str(adapter.get("model") or adapter.get("checkpoint") or adapter.get("path") or "")
    evaluation = record.after or record.before
    facts = CardFacts(
        name=record.name,
        base_model=base,
        objective=names["objective"],
        policy=names["policy"],
        task=TASKS.get(evaluation.modality, "") if evaluation else "",
        fitted=names["adapter"] == REWARD_MODEL,
        papers=_arxiv(names["objective"]),
    )
    if facts.fitted:
        facts.task = "text-classification"
    checkpoints = [path / "adapter" for path in complete(record.path / "checkpoints")]
    if checkpoints:
        facts.weights = checkpoints[-1].relative_to(record.path).as_posix()
        facts.library, facts.snippet = _loading(checkpoints[-1], facts.weights, base)
    lora = ["lora"] if "lora" in facts.snippet or "Peft" in facts.snippet else []
    facts.tags = ["mmalign", *filter(None, [names["objective"]]), *lora]
    return facts


def _is_hub_id(model: str) -> bool:
    """Does the name look like owner/name, and lie neither on this disk nor among the embedded assets?"""
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("assets/")
    return bool(hub) and local_path(model) is None


def _loading(folder: Path, shown: str, base: str) -> tuple[str, str]:
    """Library and Python lines that load `folder` without mmalign, told from the files it holds."""
    base = base or "the base model"
    if _own_head(folder):
        call = f'reward = mmalign.load_reward("reward_model", model="{shown}")'
        return "mmalign", f"import mmalign\n\n{call}"
    if (folder / "pytorch_lora_weights.safetensors").exists():
        lines = [f'pipe = DiffusionPipeline.from_pretrained("{base}")', f'pipe.load_lora_weights("{shown}")']
        lines += _scale_note(folder / "pytorch_lora_weights.safetensors")
        return "diffusers", "\n".join(["from diffusers import DiffusionPipeline", "", *lines])
    if (folder / "adapter_config.json").exists():
        task = _json(folder / "adapter_config.json").get("task_type")
        if task in PEFT:
            kind, options = PEFT[task]
            call = f'model = {kind}.from_pretrained("{shown}"{options})'
            return "peft", f"from peft import {kind}\n\n{call}"
        call = f'model = PeftModel.from_pretrained(base, "{shown}")  # base: {base}, loaded by its own class'
        return "peft", f"from peft import PeftModel\n\n{call}"
    if (folder / "model_index.json").exists():
        return (
            "diffusers",
            f'from diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained("{shown}")',
        )
    for config in [folder / "config.json", *sorted(folder.glob("*/config.json"))]:
        found = _json(config)
        if name := found.get("_class_name"):
            part = config.parent.name if config.parent != folder else "transformer"
            where = f"{shown}/{part}" if config.parent != folder else shown
            lines = [f'pipe = DiffusionPipeline.from_pretrained("{base}")']
            lines += [f'pipe.{part} = {name}.from_pretrained("{where}")']
            return "diffusers", "\n".join([f"from diffusers import DiffusionPipeline, {name}", "", *lines])
        if names := found.get("architectures"):
            return (
                "transformers",
                f'from transformers import {names[0]}\n\nmodel = {names[0]}.from_pretrained("{shown}")',
            )
    return "", ""


def _scale_note(file: Path) -> list[str]:
    """What to know of a LoRA whose alpha is not its rank, for it stands in the file's header only."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            told = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, ValueError, SafetensorError):
        return []
    found = {name.rpartition(".")[2]: value for name, value in told.items()}
    alpha, rank = found.get("lora_alpha"), found.get("r")
    if not alpha or not rank or alpha == rank:
        return []
    return [
        f"# alpha {alpha:g} / rank {rank:g} stands in the file's header: a program that does not read it must be told "
        f"a strength of {alpha / rank:g}."
    ]


def _own_head(folder: Path) -> bool:
    """Is it a reward model that the plain libraries would read without its head, or have no class for?"""
    head = _json(folder / "reward_model.json").get("head")
    if not head:
        return False
    import transformers

    named = _json(folder / "config.json").get("architectures") or []
    return head.get("kind") != "linear" or not all(hasattr(transformers, name) for name in named)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _arxiv(objective: str) -> list[str]:
    """The arXiv numbers that the objective's own docstring cites."""
    import importlib

    registry = Registry("objective", "mmalign.objectives")
    try:
        module = importlib.import_module(registry.get(objective).__module__)
    except (ConfigError, ImportError):
        return []
    return list(dict.fromkeys(re.findall(r"\b(\d{4}\.\d{5})\b", module.__doc__ or "")))


def _introduction(facts: CardFacts) -> str:
    how = f" by `{facts.objective}`" if facts.objective else ""
    base = f"`{facts.base_model}`" if facts.base_model else "a pretrained model"
    if facts.fitted:
        made = f"{base} made a reward model fitted to preferences{how}, with mmalign."
        return f"{made} In a run file: `{{name: reward_model, model: …}}`. Curves and provenance: `report.html`."
    return f"{base} aligned with rewards{how}, with mmalign. Pictures, curves and provenance: `report.html`."


def _results(record: RunRecord) -> str:
    if not record.summary:
        return ""
    lines = ["| reward | role | before | after | change | 95 % interval | n |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in record.summary:
        low, high = (number(v, signed=True) for v in row.ci)
        cells = (row.name, row.role, number(row.before), number(row.after), number(row.delta, signed=True))
        lines.append(f"| {' | '.join(cells)} | {low} to {high} | {row.n} |")
    table = "\n".join(lines)
    return (
        f"## Results on held-out prompts\n\n{table}\n\nThe interval is of the change (after - before), by a paired "
        "bootstrap over prompts. Judges and verifiers were not trained on."
    )


def _rewards(run: Mapping[str, Any]) -> str:
    rewards = run.get("rewards") or {}
    if not rewards:
        return ""
    lines = ["| reward | component | weight | options |", "|---|---|--:|---|"]
    for slot, spec in rewards.items():
        options = ", ".join(
            f"{k} = {v}" for k, v in spec.items() if k not in ("name", "weight") and v not in (None, "")
        )
        lines.append(f"| {slot} | `{spec.get('name', '')}` | {spec.get('weight', 1)} | {options.replace('|', '/')} |")
    return "## Rewards trained on\n\n" + "\n".join(lines)


def _papers(facts: CardFacts) -> str:
    if not facts.papers:
        return ""
    links = "\n".join(f"- <https://arxiv.org/abs/{paper}>" for paper in facts.papers)
    return f"## Papers behind `{facts.objective}`\n\n{links}"


def _remake(record: RunRecord) -> str:
    packages = record.environment.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version != "not installed")
    lines = ["## Remake", "", "```sh", "mmalign train run.yaml", "```"]
    if versions:
        lines += ["", f"Made with {versions}."]
    return "\n".join(lines) if record.run_text else ""
