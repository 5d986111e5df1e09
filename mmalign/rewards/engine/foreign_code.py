"""Code that is not the run's own: loaded before its first call, kept from shifting the run's random numbers and folder,
and run in a process of its own where a time limit is to hold.

What a reward needs is loaded before its first call: what cannot be loaded is a fault of the set-up, not of a row. A
reward with a method `prepare` loads what it needs there. Of others, every attribute that is made on first use
(`LoadedOnUse`, `cached_property`) is looked at once, and so are those of the parts of mmalign that it is made of.

A process is the only place where a time limit can be kept: what runs too long is killed. The clock of a row starts when
the process begins it, not when it is queued; a killed process is replaced, so it can never hold the next row back.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from mmalign.core.allowed import Permit
from mmalign.core.errors import ConfigError, MmalignError, ScoreError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status, single_outputs
from mmalign.rewards.engine.contract import OF_A_ROW, describe_error, merge, without_value

T = TypeVar("T")

SLOW = 60.0  # seconds of one call after which a line names the reward; the next comes after as long again, and so on

_LONGEST = 300  # characters of a library's own words

_START_LIMIT = 300.0  # seconds for a fresh process to import its code


@contextmanager
def foreign_call(name: str, rows: int) -> Iterator[None]:
    """Around a call of reward `name`: random state and working directory are kept, long silence is broken."""
    with (
        preserve_rng_state(),
        preserve_working_directory(),
        report_if_slow(f"reward '{name}' has been scoring {rows} rows", SLOW),
    ):
        yield


@contextmanager
def preserve_working_directory() -> Iterator[None]:
    """Go back to the working directory on leaving: relative paths of the run must mean the same afterwards."""
    here = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def report_if_slow(what: str, after: float) -> Iterator[None]:
    """Print "note: `what` for … s" after `after` seconds inside, and each time when as long again has passed."""
    done = threading.Event()

    def watch() -> None:
        waited, pause = 0.0, after
        while not done.wait(pause):
            waited, pause = waited + pause, waited + pause
            print(f"note: {what} for {waited:.0f} s.", file=sys.stderr, flush=True)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore torch's (CPU and initialised CUDA), NumPy's and Python's global generators on leaving."""
    state, numpy_state, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


class LoadedOnUse(cached_property[T]):
    """An attribute: the model that `_source` names, loaded on first use and shared with others that name it.

    Its owner, a `HoldsModel`, keeps it: it judges by one model as long as it lives, whatever becomes of the files.
    """

    def __init__(self, load: Callable[[Any], T]) -> None:
        super().__init__(lambda owner: load(owner._source))


class HoldsModel:
    """What has a `LoadedOnUse`. Copies, and those that go to another process, load theirs themselves."""

    def __getstate__(self) -> dict[str, Any]:
        """Its attributes without the models."""
        return {name: value for name, value in vars(self).items() if not _is_loaded_on_use(type(self), name)}


@runtime_checkable
class Preparable(Protocol):
    """What loads itself before its first use."""

    def prepare(self) -> None:
        """Load models and files; raises what cannot be loaded."""
        ...


def prepare(reward: object, place: str) -> None:
    """Load what `reward` needs; twice costs nothing. `place` is how messages call it.

    Raises:
        MmalignError: its own fault, or ConfigError with what the library that loads it said: no such checkpoint, no
            network, a file that is none, a package that is missing.
    """
    try:
        with preserve_rng_state(), preserve_working_directory(), report_if_slow(f"{place} has been loading", SLOW):
            _load(reward, set())
    except MmalignError:
        raise
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split())
        words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
        raise ConfigError(f"{place}: cannot be loaded: {type(error).__name__}: {words}") from error


def prepare_all(rewards: Mapping[str, Any]) -> None:
    """Load what every reward needs, each by its place; those that load themselves (`Guarded`) do.

    Raises:
        MmalignError: the one fault, or a ConfigError of all.
    """
    faults: dict[str, MmalignError] = {}
    for place, reward in rewards.items():
        try:
            prepare(reward, place)
        except MmalignError as error:
            faults[place] = error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        raise ConfigError(
            [
                sentence if (sentence := str(e)).startswith(place) else f"{place}: {sentence}"
                for place, e in faults.items()
            ]
        )


def _load(part: object, seen: set[int]) -> None:
    kind = type(part)
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Preparable):
        part.prepare()
        return
    for name in _made_on_use(kind):
        getattr(part, name)
    for name, inner in list(getattr(part, "__dict__", {}).items()):
        of_rewards = name == "reward" or type(inner).__module__.startswith("mmalign.rewards")
        if of_rewards and not _is_loaded_on_use(kind, name):  # such a model is whole
            _load(inner, seen)


def _made_on_use(kind: type) -> list[str]:
    return [name for base in kind.__mro__ for name, member in vars(base).items() if isinstance(member, cached_property)]


def _is_loaded_on_use(kind: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), LoadedOnUse) for base in kind.__mro__)


class RowProcess:
    """Scores rows one at a time in a spawned process; `timeout` seconds each."""

    def __init__(self, reward: Callable[[Rollout], Scores], name: str, timeout: float) -> None:
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

    def _one(self, prompt: Prompt, output: object, group: int) -> Scores:
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


def _kill(process: BaseProcess, pipe: Connection) -> None:
    process.kill()
    process.join()
    pipe.close()


def _live(pipe: Connection, permit: Permit, reward: Callable[[Rollout], Scores]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which may still need its rows
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    _serve(pipe, reward)


def _end_with_the_run() -> None:
    """Wait, in a thread, for the run to end however it ends, and end with it: a row's work may take for ever."""
    if (run := multiprocessing.parent_process()) is not None:
        wait([run.sentinel])
        os._exit(1)


def _serve(pipe: Connection, reward: Callable[[Rollout], Scores]) -> None:
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


def _arrays(value: object) -> Any:
    """Tensors as NumPy arrays, which travel by value; tensors would travel as shared files that outlive a kill."""
    return _mapped(value, Tensor, lambda t: t.detach().cpu().numpy())


def _tensors(value: object) -> Any:
    return _mapped(value, np.ndarray, lambda a: torch.from_numpy(np.array(a)))


def _mapped(value: object, kind: type, change: Callable[[Any], object]) -> Any:
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
