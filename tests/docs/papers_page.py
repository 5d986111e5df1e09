"""The page of papers, made from their files: `python -m tests.docs.papers_page > docs/papers.md`."""

from __future__ import annotations

from mmalign.papers import Paper, founding_papers

HEAD = """# The founding papers

The papers that this project began with, one file each in `mmalign/papers/`, of which this page is made (`__init__.py`
there says what fields mean and how a state follows). `mmalign papers` lists them, `mmalign papers 35` prints one
with its code and tests, `--json` all there is. A paper works where every method of its abstract runs by a command and a
test exercises it; data sets, scale and figures of benchmarks are no methods. Papers beyond these:
`mmalign/objectives/PAPERS.md`.
"""


def section(paper: Paper) -> str:
    """One paper as a heading and a list."""
    arxiv = f" ([{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}))" if paper.arxiv else ""
    results = [f"{result.sentence} ([JSON](../{result.file}))" for result in paper.results]
    lines = [
        *(f"- `{command}`" for command in paper.commands),
        *(f"- Result: {result}" for result in results),
        *([f"- Tests: {', '.join(f'`{test}`' for test in paper.tests)}"] if paper.tests else []),
        *(f"- Not here: {gap}" for gap in paper.missing),
        *(f"- Otherwise: {deviation}" for deviation in paper.deviations),
    ]
    return "\n".join([f"\n## {paper.number}. {paper.title}: {paper.state}\n", f"{paper.idea}{arxiv}\n", *lines]) + "\n"


def page() -> str:
    """The text of `docs/papers.md`."""
    return HEAD + "".join(map(section, founding_papers()))


if __name__ == "__main__":
    print(page(), end="")
