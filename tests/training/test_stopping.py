"""Ctrl-C asks for a stop at the end of the step; a second one interrupts."""

import os
import signal
import threading

import pytest

from mmalign.training.loop import train
from mmalign.training.stopping import stop_on_interrupt
from tests.training.problem import Problem


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_asks_and_the_second_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt() as stop:
        assert not stop()
        press()
        assert stop()
        assert "stopping when this step is done, with a checkpoint; Ctrl-C again stops" in capfd.readouterr().err
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_several_processes_threads_and_other_handlers_are_left_alone() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt(processes=2):
        press()
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with stop_on_interrupt() as stop:
            press()
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, kept)
    entered = []

    def inside() -> None:
        with stop_on_interrupt() as stop:
            entered.append(stop())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert entered == [False]


def test_the_loop_ends_with_the_step_that_was_running() -> None:
    problem, seen = Problem(steps=6), []
    hook = lambda session, policy, experience: seen.append(session.step)  # noqa: E731
    train(problem.policy, problem.objective, problem.session, [hook], lambda: problem.session.step == 2)
    assert seen == [1, 2] and problem.session.step == 2
    train(problem.policy, problem.objective, problem.session)
    whole = Problem(steps=6)
    train(whole.policy, whole.objective, whole.session)
    assert all(value.equal(whole.weights()[name]) for name, value in problem.weights().items())
