"""A reward in its own process, the only place where a time limit can be kept: what runs too long is killed.

The clock of a row starts when the process begins it, not when it is queued; a killed process is replaced, so it can
never hold the next row back.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from dataclasses import fields, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from mmalign.core.allowed import Permit
from mmalign.core.errors import MmalignError, ScoreError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.rewards.engine.contract import OF_A_ROW, describe_error, merge, without_value
from mmalign.rewards.engine.loading import prepare
from mmalign.rewards.engine.rows import single_outputs

_START_LIMIT = 300.0  # seconds for a fresh process to import its code


class RowProcess:
    """Scores rows one at a time in a spawned process; `timeout` seconds each."""

    def __init__(self, reward: Any, name: str, timeout: float) -> None:
        self.reward, self.name, self.timeout = reward, name, timeout
        self._process: Any = None
        self._pipe: Connection | None = None
        self._end: Any = None

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows; a row over its time is TIMEOUT, a row whose process died is ERROR."""
        outputs = single_outputs(rollout.output)
        groups = rollout.group.tolist()
        rows = zip(rollout.prompts, outputs, groups, strict=True)
        return merge([self._one(prompt, output, group) for prompt, output, group in rows], "cpu")

    def prepare(self) -> None:
        """Start the process and let it load what the reward needs. Raises ScoreError with what went wrong there."""
        self._started()

    def close(self) -> None:
        """Kill the process; the next call starts a new one."""
        if self._end is not None:
            self._end()
        self._process = self._pipe = self._end = None

    def _one(self, prompt: Prompt, output: Any, group: int) -> Scores:
        pipe = self._started()
        try:
            pipe.send(_arrays((prompt, output, group)))
            pipe.recv()  # "begun": from here on the row's own time runs
            if not pipe.poll(self.timeout):
                self.close()
                return without_value(1, Status.TIMEOUT, f"no answer within {self.timeout:g} s")
            answer = pipe.recv()
        except (EOFError, OSError):
            code = self._exit_code()
            self.close()
            return without_value(1, Status.ERROR, f"the reward's process ended with exit code {code}")
        return Scores(**_tensors(answer)) if isinstance(answer, dict) else without_value(1, Status.ERROR, answer)

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_live, args=(theirs, Permit(), self.reward), daemon=True)
            self._process.start()
            theirs.close()
            self._end = weakref.finalize(self, _kill, self._process, self._pipe)
            self._await_ready(self._pipe)
        return self._pipe

    def _await_ready(self, pipe: Connection) -> None:
        try:
            fault = pipe.recv() if pipe.poll(_START_LIMIT) else f"it did not start within {_START_LIMIT:g} s"
        except (EOFError, OSError):
            fault = f"it ended with exit code {self._exit_code()}"
        if fault:
            self.close()
            raise ScoreError(f"reward '{self.name}', in a process of its own: {fault}.")

    def _exit_code(self) -> int | None:
        self._process.join(5)
        return self._process.exitcode


def _kill(process: Any, pipe: Connection) -> None:
    process.kill()
    process.join()
    pipe.close()


def _live(pipe: Connection, permit: Permit, reward: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which may still need its rows
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    _serve(pipe, reward)


def _end_with_the_run() -> None:
    """Wait, in a thread, for the run to end however it ends, and end with it: a row's work may take for ever."""
    if (run := multiprocessing.parent_process()) is not None:
        wait([run.sentinel])
        os._exit(1)


def _serve(pipe: Connection, reward: Any) -> None:
    """The process's whole life: load, say "" or why not; read a row, say "begun", answer with its scores or a fault."""
    torch.set_num_threads(1)
    try:
        prepare(reward, "it")  # a model's loading is not the first row's time
    except MmalignError as error:
        pipe.send(str(error).rstrip("."))
        return
    pipe.send("")
    while True:
        try:
            prompt, output, group = _tensors(pipe.recv())
        except EOFError:
            return
        pipe.send("begun")
        try:
            output = output[None] if isinstance(output, Tensor) else output if isinstance(output, Audio) else [output]
            scores = reward(Rollout(prompts=[prompt], output=output, group=torch.tensor([group])))
            pipe.send(_arrays({field.name: getattr(scores, field.name) for field in fields(scores)}))
        except OF_A_ROW as error:
            pipe.send(describe_error(error))


def _arrays(value: Any) -> Any:
    """Tensors as NumPy arrays, which travel by value; tensors would travel as shared files that outlive a kill."""
    return _mapped(value, Tensor, lambda t: t.detach().cpu().numpy())


def _tensors(value: Any) -> Any:
    return _mapped(value, np.ndarray, lambda a: torch.from_numpy(np.array(a)))


def _mapped(value: Any, kind: type, change: Any) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {k: _mapped(v, kind, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(v, kind, change) for v in value)
    if isinstance(value, Prompt):
        return replace(
            value, media=_mapped(dict(value.media), kind, change), meta=_mapped(dict(value.meta), kind, change)
        )
    if isinstance(value, Audio):
        return replace(value, samples=_mapped(value.samples, kind, change), mask=_mapped(value.mask, kind, change))
    return value
