"""A component on a terminal: what it is and takes."""

from __future__ import annotations

from typing import Any

from mmalign.run.component_docs import component_docs


def describe_component(kind: str, name: str, component: type[Any]) -> str:
    """The documentation of a component, its file, and its options: values with their range, default and meaning."""
    docs = component_docs(component)
    lines = [f"{kind}: {name}", f"source: {docs.source}", "", docs.prose, "", "options:"]
    for option in docs.options:
        lines.append(f"  {option.name}: {option.default}    ({option.values})")
        lines += [f"      {line.strip()}" for line in option.meaning.splitlines()]
    return "\n".join(lines)
