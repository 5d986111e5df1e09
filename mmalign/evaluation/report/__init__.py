"""One self-contained HTML file per run directory: opens offline, asks the network for nothing, follows dark mode.

`..run_record` collects what the directory holds, `charts.py` draws, `curves.py` and `gallery.py` choose what to draw,
`page.py` fills `page.html`.
"""

from mmalign.evaluation.report.page import write_report

__all__ = ["write_report"]
