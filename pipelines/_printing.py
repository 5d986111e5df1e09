"""What a pipeline prints at its end, as `mmalign train` does."""

from __future__ import annotations

from mmalign.run.train import Finished


def tell(finished: Finished) -> None:
    """Print the rows of the summary, and where the run lies."""
    if finished.rows:
        from rich.console import Console

        from mmalign.evaluation.table import summary_table

        Console().print(summary_table(finished.rows))
    place = finished.directory.path
    print(f"run directory  {place}\nreport         {place / 'report.html'}")
