"""The README.md of a run directory, and of the weights alone: what was trained from what, how well, how others load it.

The header is that of the Hub's model cards; `card_sections.py` has what is read from elsewhere.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmalign.core.checkpoints import complete
from mmalign.core.errors import ConfigError
from mmalign.core.files import local_path, write_beside
from mmalign.evaluation.card_sections import (
    Gallery,
    data_names,
    gallery_of,
    hacking,
    intended_use,
    licence_of,
    model_index,
)
from mmalign.evaluation.loading_lines import (
    REWARD_MODEL,
    Place,
    Trained,
    absent,
    is_hub_id,
    loading_lines,
    name_of,
    plain_name,
    read_object,
)
from mmalign.evaluation.run_record import RunRecord, read_run
from mmalign.evaluation.table import number_text
from mmalign.loading.trained import BASE
from mmalign.objectives import objectives

__all__ = ["CardFacts", "card", "card_facts", "weights_card", "write_cards"]

TASKS = {"image": "text-to-image", "audio": "text-to-audio", "text": "text-generation"}
ABOUT = {"image_text": "image-to-text", "audio_text": "audio-text-to-text", REWARD_MODEL: "text-classification"}
ASSETS = "it comes with mmalign's repository"


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
    snippet: str = ""  # for readers of the card, wherever they have put the folder
    here: str = ""  # the same for this machine, whatever the working directory
    lora: str = ""  # what loaders must know of its scale
    tags: list[str] = field(default_factory=list)
    papers: list[str] = field(default_factory=list)
    alone: str = ""  # `snippet`, for readers of the weights' own folder
    licence: str = ""  # of the base model, as the Hub abbreviates it
    data_licences: dict[str, str] = field(default_factory=dict)  # by data set of the Hub or embedded file
    fitted: bool = False  # a reward model: fitted to preferences, not aligned with rewards


def card(directory: Path | str) -> str:
    """Return the model card as Markdown with the Hub's YAML header; missing parts of the directory are left out of it.

    Its samples are files of the evaluations of the directory.

    Raises:
        DataError: there is no such directory.
    """
    return _run_card(read_run(directory))


def _run_card(record: RunRecord) -> str:
    gallery = gallery_of(record)
    named = {name: path.relative_to(record.path).as_posix() for name, path in gallery.files.items()}
    facts = card_facts(record)
    return _written(record, facts, facts.snippet, gallery, named, "report.html")


def weights_card(record: RunRecord, place: str = "") -> tuple[str, Gallery]:
    """The card of the newest weights as they lie in a folder of their own, and the files that it shows.

    Args:
        place: where they will be found, as a Hub id; by default their folder.
    """
    facts, gallery = card_facts(record), gallery_of(record)
    snippet = facts.alone
    if place:
        snippet = re.sub(r'(?m)^run = "\."  # .*$', f'run = "{place}"', snippet)
    return _written(record, facts, snippet, gallery, {name: name for name in gallery.files}, ""), gallery


def write_cards(directory: Path | str) -> None:
    """Write the card of a run directory, and that of its newest weights into their folder."""
    path, record = Path(directory), read_run(directory)
    with write_beside(path / "README.md") as beside:
        beside.write_text(_run_card(record), encoding="utf-8")
    newest = [folder / "adapter" for folder in complete(path / "checkpoints")][-1:]
    for folder in newest:
        text, gallery = weights_card(record)
        gallery.write(folder)
        with write_beside(folder / "README.md") as beside:
            beside.write_text(text, encoding="utf-8")


def _written(
    record: RunRecord, facts: CardFacts, snippet: str, gallery: Gallery, named: Mapping[str, str], report: str
) -> str:
    import yaml

    parts = [
        f"---\n{yaml.safe_dump(_header(record, facts, gallery, named), sort_keys=False, allow_unicode=True)}---",
        f"# {escaped(facts.name)}",
        _introduction(facts, report),
        _samples(gallery, named),
        _results(record),
        f"## Intended use\n\n{escaped(intended_use(record, facts.task))}" if record.run else "",
        _rewards(record.run),
        "## Reward hacking\n\n" + "\n".join(f"- {escaped(line)}" for line in hacking(record)) if record.run else "",
        _load(facts, snippet),
        _licences(facts, record),
        _papers(facts),
        _remake(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(record: RunRecord, facts: CardFacts, gallery: Gallery, named: Mapping[str, str]) -> dict[str, Any]:
    header: dict[str, Any] = {"tags": facts.tags}
    if facts.licence:
        header["license"] = facts.licence
    if facts.library:
        header["library_name"] = facts.library
    if facts.task:
        header["pipeline_tag"] = facts.task
    if is_hub_id(facts.base_model):
        header["base_model"] = facts.base_model
        header["base_model_relation"] = "adapter" if "lora" in facts.tags else "finetune"
    if hub := data_names(record.run)[0]:
        header["datasets"] = hub
    shown = [{"text": one.prompt, "output": {"url": named[one.after]}} for one in gallery.samples if one.after in named]
    if shown:
        header["widget"] = shown
    if index := model_index(record, facts.name, facts.task):
        header["model-index"] = index
    return header


def card_facts(record: RunRecord) -> CardFacts:
    """Return the facts, from the run file and from what the newest checkpoint holds."""
    run = record.run
    names = {key: str((run.get(key) or {}).get("name", "")) for key in ("objective", "policy", "adapter")}
    adapter = run.get("adapter") or {}
    base = str(adapter.get("model") or adapter.get("checkpoint") or adapter.get("path") or "")
    evaluation = record.after or record.before
    facts = CardFacts(
        name=record.name,
        base_model=plain_name(base),
        objective=names["objective"],
        policy=names["policy"],
        task=ABOUT.get(names["adapter"]) or (TASKS.get(evaluation.modality, "") if evaluation else ""),
        fitted=names["adapter"] == REWARD_MODEL,
        papers=_arxiv(names["objective"]),
    )
    checkpoints = [path / "adapter" for path in complete(record.path / "checkpoints")]
    if checkpoints:
        facts.weights = checkpoints[-1].relative_to(record.path).as_posix()
        base = str(read_object(checkpoints[-1] / "adapter_config.json").get("base_model_name_or_path") or base)
        base, earlier = _earlier(base)
        away, here = _places(record, base)
        without = absent(local_path(base), adapter)
        named = (
            replace(earlier, place=(plain_name(earlier.place[0]), f"the {earlier.component} that it was trained from"))
            if earlier
            else None
        )
        facts.library, facts.snippet = loading_lines(checkpoints[-1], facts.weights, adapter, *away, without, named)
        facts.here = loading_lines(checkpoints[-1], facts.weights, adapter, *here, without, earlier)[1]
    lora = ["lora"] if "lora" in facts.snippet or "Peft" in facts.snippet else []
    facts.lora = _scale(adapter) if lora else ""
    if facts.snippet:
        facts.alone = _alone(facts.snippet, facts.weights)
    facts.licence = licence_of(base) if base else ""
    hub, files = data_names(run)
    facts.data_licences = {name: licence_of(name, "dataset") for name in (*hub, *files) if "/" in name}
    facts.tags = ["mmalign", *filter(None, [names["objective"]]), *lora]
    return facts


def _alone(snippet: str, weights: str) -> str:
    """The lines for somebody who has the weights' folder alone, in which this card lies."""
    inside = snippet.replace(f'f"{{run}}/{weights}"', "run")
    return inside.replace(f"{{run}}/{weights}/", "{run}/")


def _earlier(base: str) -> tuple[str, Trained | None]:
    """The model that `base` is, or the one whose component `base` is, and that component as it lies here."""
    folder = local_path(base)
    facts = read_object(folder / BASE) if folder is not None else {}
    if folder is None or not {"model", "component"} <= facts.keys():
        return base, None
    part = folder / str(facts["component"])
    config = read_object(part / "config.json")
    kind = config.get("_class_name") or next(iter(config.get("architectures") or []), "")
    return str(facts["model"]), Trained(part.name, str(kind), (str(part.absolute()), ""))


def _places(record: RunRecord, base: str) -> tuple[tuple[Place, Place], tuple[Place, Place]]:
    """Base and run directory as a reader of the card names them, and as they lie on this machine."""
    about = "" if is_hub_id(base) else f"the folder of the base model; {ASSETS}" if base.startswith("assets/") else ""
    named = (plain_name(base), about or ("" if is_hub_id(base) else "the folder of the base model"))
    folder = local_path(base)
    lies = str(folder.absolute()) if folder is not None else base
    return (named, (".", "the folder of this file")), ((lies, ""), (str(record.path.absolute()), ""))


def _scale(adapter: Mapping[str, Any]) -> str:
    """A LoRA's scale, which not every loader reads."""
    lora = adapter.get("lora") or {}
    rank, alpha = lora.get("rank"), lora.get("alpha")
    if not rank or not alpha or alpha == rank:
        return ""
    way = f"a loader that does not read its alpha must scale it by {alpha / rank:g}"
    return f"A LoRA of rank {rank} and alpha {alpha}: {way}."


def _load(facts: CardFacts, snippet: str) -> str:
    if not snippet:
        return ""
    return "\n\n".join(filter(None, ["## Load", f"```python\n{snippet}\n```", facts.lora]))


def _licences(facts: CardFacts, record: RunRecord) -> str:
    """Of the base and of the data, as far as they say so themselves."""
    if not record.run or not facts.base_model:
        return ""
    unknown = "not stated here: read it where it comes from"
    lines = [f"- base model {code(facts.base_model)}: {facts.licence or unknown}"]
    hub, files = data_names(record.run)
    lines += [f"- data {code(name)}: {facts.data_licences.get(name) or unknown}" for name in (*hub, *files)]
    derived = "The weights are derived from the base model; its licence applies to them."
    return "## Licence\n\n" + "\n".join([*lines, "", derived])


def _samples(gallery: Gallery, named: Mapping[str, str]) -> str:
    """A table of the first held-out prompts, before and after from the same noise."""
    if not gallery.samples:
        return ""

    def cell(shown: str) -> str:
        if shown in named:
            link = f"[{Path(shown).stem}]({named[shown]})"
            return f"!{link}" if gallery.modality == "image" else link
        return escaped(shown) or "–"

    lines = ["| prompt | before | after |", "|---|---|---|"]
    lines += [f"| {escaped(one.prompt)} | {cell(one.before)} | {cell(one.after)} |" for one in gallery.samples]
    note = "The first held-out prompts in file order, not chosen; before and after come from the same noise."
    return "## Samples\n\n" + "\n".join([*lines, "", note])


def escaped(text: str) -> str:
    """Return a name as Markdown shows it, within a line and a cell: nothing in it is markup."""
    line = " ".join(str(text).split())
    return re.sub(r"(?<!\w)_|_(?!\w)|[\\`*\[\]<>|~#$]", lambda match: f"\\{match.group()}", line)


def code(text: str) -> str:
    """Return a name as Markdown shows code, within a line and a cell."""
    line = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`"


def _arxiv(objective: str) -> list[str]:
    """The arXiv numbers that the objective's own docstring cites."""
    import importlib

    try:
        module = importlib.import_module(objectives.get(objective).__module__)
    except (ConfigError, ImportError):
        return []
    return list(dict.fromkeys(re.findall(r"\b(\d{4}\.\d{5})\b", module.__doc__ or "")))


def _introduction(facts: CardFacts, report: str) -> str:
    how = f" by {code(facts.objective)}" if facts.objective else ""
    base = code(facts.base_model) if facts.base_model else "a pretrained model"
    note = f" {'Curves' if facts.fitted else 'Pictures, curves'} and provenance: `{report}`." if report else ""
    if facts.fitted:
        made = f"{base} made a reward model fitted to preferences{how}, with mmalign."
        return f"{made} In a run file: `{{name: reward_model, model: …}}`.{note}"
    return f"{base} aligned with rewards{how}, with mmalign.{note}"


def _results(record: RunRecord) -> str:
    if not record.summary:
        return ""
    lines = ["| reward | role | before | after | change | 95 % interval | n |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in record.summary:
        low, high = (number_text(v, signed=True) for v in row.ci)
        cells = (
            escaped(row.name),
            row.role,
            number_text(row.before),
            number_text(row.after),
            number_text(row.delta, signed=True),
        )
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
            f"{k} = {_without_place(v)}" for k, v in spec.items() if k not in ("name", "weight") and v not in (None, "")
        )
        cells = (escaped(slot), code(spec.get("name", "")), spec.get("weight", 1), escaped(options))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "## Rewards trained on\n\n" + "\n".join(lines)


def _papers(facts: CardFacts) -> str:
    if not facts.papers:
        return ""
    links = "\n".join(f"- <https://arxiv.org/abs/{paper}>" for paper in facts.papers)
    return f"## Papers behind {code(facts.objective)}\n\n{links}"


def _remake(record: RunRecord) -> str:
    packages = record.environment.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version != "not installed")
    lines = ["## Remake", "", "```sh", remaking(record.run), "```"]
    command = str(record.environment.get("command") or "")
    if command and not command.startswith("mmalign "):
        lines += ["", f"That is the run file; it was made by {code(shlex.join(map(name_of, _words(command))))}."]
    if versions:
        lines += ["", f"Made with {versions}."]
    return "\n".join(lines) if record.run_text else ""


def remaking(run: Mapping[str, Any]) -> str:
    """Return the command that trains a run's own file again, from its folder; changes are in the file already."""
    modules = sorted({name.partition(":")[0] for name in _names(run) if ":" in name})
    return shlex.join(["mmalign", "train", "run.yaml", *(word for module in modules for word in ("--allow", module))])


def _names(value: object) -> Iterator[str]:
    """Every `name:` in a run file."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield value["name"]
        for inner in value.values():
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return [command]


def _without_place(value: object) -> Any:
    """Plain data in which paths of this disk are their last parts."""
    if isinstance(value, Mapping):
        return {key: _without_place(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_place(inner) for inner in value]
    return name_of(value) if isinstance(value, str) else value
