"""Run every benchmark and write `results/<name>.json`: `make bench`, or `python -m tests.benchmarks overhead`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mmalign.core.files import write_beside
from mmalign.run.directory import environment
from tests.benchmarks import (
    encoded_once,
    fitted_once,
    group_size,
    million_rows,
    overhead,
    quantized,
    real_peer,
    remote_rewards,
    set_rewards,
    shield,
    span_memory,
    trl_peer,
)

BENCHMARKS: dict[str, Callable[[], Any]] = {
    "overhead": overhead.measure,
    "group_size": group_size.measure,
    "span_memory": span_memory.measure,
    "set_rewards": set_rewards.measure,
    "shield": shield.measure,
    "million_rows": million_rows.measure,
    "remote_rewards": remote_rewards.measure,
    "encoded_once": encoded_once.measure,
    "fitted_once": fitted_once.measure,
    "quantized": quantized.measure,
    "trl_grpo": trl_peer.measure_grpo,
    "trl_grpo_short": partial(trl_peer.measure_grpo, trl_peer.SHORT),
    "trl_dpo": trl_peer.measure_dpo,
    "trl_memory": trl_peer.measure_memory,
}
WITH_EXTRA = {"real_peer": real_peer.measure}  # the extra `real`: measured where it is named


def main() -> None:
    """Measure what is named, or all."""
    for name in sys.argv[1:] or BENCHMARKS:
        found = (BENCHMARKS | WITH_EXTRA)[name]()
        path = Path(__file__).parent / "results" / f"{name}.json"
        with write_beside(path) as beside:
            beside.write_text(json.dumps({"environment": environment(), "found": found}, indent=1) + "\n")
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
