"""The page of metrics, made from their table: `python -m tests.docs.metrics_page > docs/metrics.md`."""

from __future__ import annotations

from mmalign.core.metrics import METRICS

HEAD = """# Metrics

The numbers of `metrics.jsonl` and of the trackers, made from `mmalign/core/metrics.py`. `<…>` stands for a name
that the run file gives, a part of a reward, or a phase of a step.

| name | meaning |
|---|---|
"""


def page() -> str:
    """The text of `docs/metrics.md`."""
    rows = (f"| `{name}` | {meaning.replace('|', chr(92) + '|')} |\n" for name, meaning in METRICS.items())
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")
