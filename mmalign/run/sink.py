"""Where a run's numbers and samples go: its directory and the tracker that its file names. There is no other way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmalign.core.files import write_folder_beside
from mmalign.core.protocols import Accelerator
from mmalign.core.types import Rollout, Scores
from mmalign.run.directory import RunDirectory
from mmalign.run.trackers import show_samples

__all__ = ["RunSink"]


@dataclass(frozen=True)
class RunSink:
    """Writes in the main process, whoever calls it; `accelerator` has the trackers."""

    directory: RunDirectory
    accelerator: Accelerator

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, and a point of each curve."""
        if self.accelerator.is_main_process:
            self.directory.append_metrics(step, numbers)
        self.accelerator.log(dict(numbers), step=step)

    def samples(self, step: int, rollout: Rollout, scores: Mapping[str, Scores]) -> None:
        """The folder `samples/step_<n>`, and the first outputs in the tracker."""
        from mmalign.evaluation.samples import save_samples

        if not self.accelerator.is_main_process:
            return
        with write_folder_beside(self.directory.samples(step)) as folder:
            save_samples(folder, rollout, scores)
        show_samples(self.accelerator, rollout, scores, step)
