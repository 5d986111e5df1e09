"""mmalign's GRPO and DPO steps against those of TRL's GRPOTrainer and DPOTrainer: time and peak memory.

Both sides: the same Qwen2 of 28 M random weights, all of them trained, float32, CPU, `torch.optim.AdamW` for every
tensor, gradients clipped to norm 1, no layers recomputed, nothing logged or written, prompts of 128 tokens or an eighth
less (a question in a chat template), completions of 64.

GRPO (4 prompts × 8 completions, one update, no KL): both sample with temperature 1 and a cache, judge with the same
free rule, and forward and backward once; neither recomputes the old log-probs (TRL takes those of the update itself,
mmalign those of the sampler), both report the entropy. mmalign forwards a prompt once for its eight rows, in sampling
and in the update, and makes logits of completions alone; TRL forwards prompt and completion of every row, and its head
outside of CUDA makes logits of every position. `trl_grpo_short` is the same behind prompts of 32 tokens.

DPO (16 given pairs, β 0.1): both forward the reference, then the policy with gradient, on both sides of every pair.
mmalign forwards a prompt once for all the outputs that share it: both sides of a pair (`sixteen_prompts`), or of the
four pairs of a prompt (`four_prompts`). TRL forwards prompt and output of every row.

Steps are taken in turn, in processor seconds. TRL's step is what lies between its callbacks `on_step_begin` and
`on_step_end`, without its data loader; mmalign's is a whole turn of its loop. An output may end early with a chance of
1 in 12,288 a token. "outside_model" is the share of mmalign's step that is neither forward, head, backward nor AdamW.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.benchmarks import language, trl_trainers
from tests.benchmarks.overhead import seconds

QUESTION, SHORT = 128, 32


def measure_grpo(prompt_words: int = QUESTION, repeats: int = 5) -> dict[str, Any]:
    """A GRPO step."""
    with language.model_folder() as folder:
        adapter = language.loaded(Path(folder))
        prompts = language.texts(language.PROMPTS, prompt_words, 0)
        step = language.grpo(adapter, prompts)
        theirs = partial(trl_trainers.grpo, Path(folder), prompts)
        return {**_setting(prompt_words), **_paired(step, theirs, repeats), "outside_model": _outside(step, adapter)}


def measure_dpo(repeats: int = 5) -> dict[str, Any]:
    """A DPO step, with four prompts and with as many as pairs."""
    found = {}
    with language.model_folder() as folder:
        for name, distinct in (("four_prompts", language.PROMPTS), ("sixteen_prompts", 16)):
            adapter = language.loaded(Path(folder))
            pairs = language.preferences(QUESTION, distinct)
            step = language.dpo(adapter, pairs)
            theirs = partial(trl_trainers.dpo, Path(folder), pairs)
            found[name] = {**_paired(step, theirs, repeats), "outside_model": _outside(step, adapter)}
    return {**_setting(QUESTION), **found}


def measure_memory() -> dict[str, Any]:
    """Peak memory, every case in a process of its own: what the second step adds, and the process as a whole, MiB."""
    found: dict[str, Any] = _setting(QUESTION)
    with language.model_folder() as folder:
        for kind in ("grpo", "dpo"):
            ours, theirs = (_peak(folder, kind, side) for side in ("mmalign", "trl"))
            found[kind] = {"mmalign": ours, "trl": theirs}
            found[kind]["ratio_of_step"] = round(theirs["step_mib"] / ours["step_mib"], 2)
    return found


def _setting(prompt_words: int) -> dict[str, Any]:
    return {"trl": importlib.metadata.version("trl"), "prompt_tokens": prompt_words, "threads": torch.get_num_threads()}


def _paired(step: Callable[[], None], theirs: Callable[..., None], repeats: int) -> dict[str, Any]:
    """Medians over `repeats` pairs of steps after a first one of each, which is not counted."""
    ours: list[float] = []
    taken: list[float] = []
    began = [0.0]

    def before() -> None:
        ours.append(seconds(step))
        began[0] = time.process_time()

    def after() -> None:
        taken.append(time.process_time() - began[0])
        print(f"pair {len(taken)}: mmalign {ours[-1]:.2f} s, TRL {taken[-1]:.2f} s", file=sys.stderr, flush=True)

    theirs(repeats + 1, trl_trainers.Steps(before, after))
    ratios = sorted(t / o for o, t in zip(ours[1:], taken[1:], strict=True))
    return {
        "mmalign_seconds": round(statistics.median(ours[1:]), 3),
        "trl_seconds": round(statistics.median(taken[1:]), 3),
        "times_faster": round(statistics.median(ratios), 2),
        "range": [round(ratios[0], 2), round(ratios[-1], 2)],
        "pairs": len(ratios),
    }


def _outside(step: Callable[[], None], adapter: Any) -> float:
    """The share of one step that is not spent in the model."""
    spent = [0.0]
    with _counted(spent, adapter):
        total = seconds(step)
    return round(1 - spent[0] / total, 3)


@contextmanager
def _counted(spent: list[float], adapter: Any) -> Iterator[None]:
    """Inside it `spent` grows by the processor seconds of forward, head, backward and the optimizer."""
    began: list[float] = []

    def start(*_: Any) -> None:
        began.append(time.process_time())

    def stop(*_: Any) -> None:
        spent[0] += time.process_time() - began.pop()

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start()
            try:
                return function(*args, **options)
            finally:
                stop()

        return call

    hooks = [
        adapter.module.register_forward_pre_hook(start),
        adapter.module.register_forward_hook(stop),
        register_optimizer_step_pre_hook(start),
        register_optimizer_step_post_hook(stop),
    ]
    head, backward = adapter.network.head, torch.Tensor.backward
    adapter.network.head, torch.Tensor.backward = timed(head), timed(backward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        adapter.network.head, torch.Tensor.backward = head, backward  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()


def _peak(folder: str, kind: str, side: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.benchmarks.trl_peer", folder, kind, side]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(said.strip().split("\n")[-1])


def _second_step(folder: Path, kind: str, side: str) -> dict[str, int]:
    rest, prompts = [0.0], language.texts(language.PROMPTS, QUESTION, 0)
    given: Any = prompts if kind == "grpo" else language.preferences(QUESTION, language.PROMPTS)
    if side == "mmalign":
        return peak_of(getattr(language, kind)(language.loaded(folder), given))  # the first step is taken here

    def before() -> None:
        rest[0] = resting()

    getattr(trl_trainers, kind)(folder, given, 2, trl_trainers.Steps(before, lambda: None))
    return peak_since(rest[0])


def peak_of(step: Callable[[], None]) -> dict[str, int]:
    """`peak_since` of one step."""
    rest = resting()
    step()
    return peak_since(rest)


def peak_since(rest: float) -> dict[str, int]:
    """What the process held at most, MiB: beyond `rest`, and as a whole."""
    peak = _kib("VmHWM")
    return {"step_mib": round((peak - rest) / 1024), "process_mib": round(peak / 1024)}


def resting() -> float:
    """What the process holds between steps, KiB; forgets the peak so far (Linux, glibc)."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _kib("VmRSS")


def _kib(name: str) -> float:
    """A number of `/proc/self/status`."""
    with Path("/proc/self/status").open(encoding="utf-8") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(name))


if __name__ == "__main__":
    print(json.dumps(_second_step(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
