"""An answer that keeps to a request of `instruction_rows.py`, made by rule: a first lesson in form, not in style."""

from __future__ import annotations

import json
import re
from typing import Any

from mmalign.rewards.text._instructions import followed
from pipelines.real.instruction_rows import Draw, pick

ADJECTIVES = (
    "calm",
    "bright",
    "lovely",
    "simple",
    "quiet",
    "gentle",
    "fresh",
    "strange",
    "busy",
    "soft",
    "rich",
    "deep",
)


def answer(row: dict[str, Any], draw: Draw) -> str:
    """A text that follows every instruction of the row."""
    topic, *others = row["instructions"]
    rules = {name: value for rule in others for name, value in rule.items()}
    if "equals" in topic:
        return str(topic["equals"])
    match = re.match(r"Write about (.+?) and name it\.", row["prompt"])
    assert match is not None, row
    text = _text(match[1], rules, draw)
    text = text.lower() if "lower_case" in rules else text.upper() if "upper_case" in rules else text
    assert all(followed(text, [*topic.items(), *rules.items()])), (row, text)
    return text


def _text(topic: str, rules: dict[str, Any], draw: Draw) -> str:
    word, ending = rules.get("contains", ""), rules.get("ends_with", "")
    if keys := rules.get("json_keys"):
        return json.dumps({keys[0]: topic, keys[1]: word or pick(draw, ADJECTIVES)})
    if count := rules.get("bullets"):
        adjectives = [word or pick(draw, ADJECTIVES), *(pick(draw, ADJECTIVES) for _ in range(count - 1))]
        return "\n".join(f"- {adjective} {topic.split()[-1]}" for adjective in adjectives) + (
            f" {ending}" if ending else ""
        )
    opening, most = rules.get("starts_with", ""), min(9, rules.get("max_words", 9))
    total = rules.get("words") or int(draw.integers(min(5, most), most + 1))
    core = _core(topic, word, total - len(opening.split()) - len(ending.split()), draw)
    if not opening:
        core = [part.capitalize() if i == 0 else part for i, part in enumerate(core)]
    return " ".join([*opening.split(), *core, *ending.split()]) + ("" if ending else ".")


def _core(topic: str, word: str, count: int, draw: Draw) -> list[str]:
    """`count` words about the topic, `word` among them: "the sea is very calm and bright"."""
    order = [ADJECTIVES[i] for i in draw.permutation(len(ADJECTIVES))]
    adjectives, left = [word or order[0]], count - len(topic.split()) - 1
    while len(adjectives) + 2 <= left:
        adjectives += ["and", order[len(adjectives)]]
    if left >= 1:
        return [*topic.split(), "is", *(["very"] if len(adjectives) < left else []), *adjectives]
    return [word or order[0], topic.split()[-1], "now"][:count]
