"""What was run, and from what: the sentence at the head of a report, its short facts, and where the run came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmalign.evaluation.card import CardFacts
from mmalign.evaluation.progress import in_words
from mmalign.evaluation.run_record import RunRecord

__all__ = ["flat", "header_facts", "provenance", "what_was_run"]

SOURCES = ("path", "held_out_path", "repo", "name")


def what_was_run(record: RunRecord, model: CardFacts) -> str:
    """One sentence: the objective, the model, the steps, the rewards, and what only measured; "" without a run file."""
    if not record.run:
        return ""
    roles = record.roles
    trained = [name for name, role in roles.items() if role == "trained"]
    judges = [name for name, role in roles.items() if role != "trained"]
    steps = int(record.metrics[-1]["step"]) if record.metrics else 0
    base = model.base_model or str((record.run.get("adapter") or {}).get("name") or "a model")
    words = [f"{base}, {'fitted to preferences' if model.fitted else 'trained'} by {model.objective}"]
    words += [f"for {steps:,} step{'' if steps == 1 else 's'}"] if steps else []
    words += [f"on {_listed(trained)}"] if trained else []
    sentence = " ".join(words)
    if judges:
        sentence += f"; {_listed(judges)} only measured"
    evaluation = record.after or record.before
    if evaluation is not None:
        prompts = len(set(evaluation.group.tolist()))
        each = f", {evaluation.repeats} outputs each" if evaluation.repeats > 1 else ""
        sentence += f" ({prompts:,} held-out prompts{each})"
    return f"{sentence}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def header_facts(record: RunRecord) -> list[tuple[str, str]]:
    """What the header says, short; entries without a value are left out."""
    env = record.environment
    steps = int(record.metrics[-1]["step"]) if record.metrics else 0
    method = [str((record.run.get(key) or {}).get("name") or "") for key in ("objective", "policy", "adapter")]
    alarms = (record.run.get("trainer") or {}).get("alarms", "say")
    facts = {
        "Method": " · ".join(filter(None, method)),
        "Steps": f"{steps:,}" if steps else "",
        "Duration": _took(record),
        "Device": str(env.get("device", "")),
        "Started": str(env.get("started", "")).replace("T", " ").removesuffix("+00:00"),
        "Alarms": "" if record.alarms or not steps else "not looked for" if alarms == "none" else "none",
    }
    return [(name, value) for name, value in facts.items() if value]


def _took(record: RunRecord) -> str:
    seconds = record.seconds
    if seconds is None:
        seconds = sum(v for line in record.metrics for k, v in line.items() if k.startswith("time/"))
    return in_words(seconds) if seconds else ""


def provenance(record: RunRecord, model: CardFacts) -> list[tuple[str, str]]:
    """Model, data, versions, commit and command; what the directory does not say is left out."""
    env, data = record.environment, record.run.get("data") or {}
    packages = env.get("packages")
    packages = packages if isinstance(packages, Mapping) else {}
    facts = {
        "Model": model.base_model,
        "Weights": model.weights,
        "Data": ", ".join(str(data[key]) for key in SOURCES if data.get(key)),
        "Seed": str((record.run.get("trainer") or {}).get("seed", "")),
        "Command": str(env.get("command") or ""),
        "Commit": str(env.get("commit") or ""),
        "Versions": ", ".join(f"{name} {v}" for name, v in packages.items() if v != "not installed"),
    }
    rest = {name: value for name, value in flat(env) if name.partition(".")[0] not in ("command", "commit", "packages")}
    return [(name, value) for name, value in (facts | rest).items() if value]


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (dotted name, text)."""
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            yield from flat(inner, f"{name}.")
        else:
            yield name, ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)
