"""One self-contained HTML file per run directory: opens offline, asks the network for nothing, follows dark mode.

`..run_record` collects what the directory holds; `curves.py`, `gallery.py`, `sheets.py`, `parts.py`, `subsets.py` and
`provenance.py` choose what to show of it, `charts.py` draws, `detail.py` bounds its size; `page.py` fills `page.html`,
whose sections are the other templates. `page.js` is the only script that a browser lets it run; without it pairs stand
side by side.
"""

from mmalign.evaluation.report.page import write_report

__all__ = ["write_report"]
