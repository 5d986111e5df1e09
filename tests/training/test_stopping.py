"""A signal asks for a stop at the end of the step; a second one interrupts."""

import os
import signal
import threading

import pytest

from mmalign.core.signals import Interrupted, exit_code, interrupting
from mmalign.training.loop import training_loop
from mmalign.training.stopping import stop_on_signal
from tests.training.problem import Problem

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_and_the_second_interrupts(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, stop_on_signal() as asked:
        assert asked() == 0
        send(number)
        assert asked() == number
        assert "stopping when this step is done, with a checkpoint; Ctrl-C again stops" in capfd.readouterr().err
        send(number)
    assert caught.value.number == number and exit_code(caught.value) == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_outside_the_steps_a_signal_interrupts_at_once(number: int) -> None:
    with pytest.raises(Interrupted) as caught, interrupting(), interrupting():
        send(number)
    assert caught.value.number == number
    assert signal.getsignal(number) == signal.SIG_DFL
    with pytest.raises(Interrupted), interrupting():
        with stop_on_signal() as asked:
            send(number)
            assert asked() == number
        send(number)  # the steps are over


def test_a_warning_only_ever_asks_and_what_follows_it_is_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted) as caught, stop_on_signal() as asked:
        for _ in range(3):
            send(signal.SIGUSR1)
            assert asked() == signal.SIGUSR1
        send(signal.SIGTERM)
        assert asked() == signal.SIGTERM
        assert capfd.readouterr().err.count("stopping when this step is done") == 1
        send(signal.SIGUSR1)  # late
        assert asked() == signal.SIGTERM
        send(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM


def test_of_several_processes_an_echo_is_no_second_request() -> None:
    with stop_on_signal(processes=2, speak=False) as asked:
        send(signal.SIGTERM)
        send(signal.SIGTERM)  # from the launcher, and from the scheduler
        assert asked() == signal.SIGTERM


def test_threads_and_other_handlers_are_left_alone() -> None:
    for number in SIGNALS:
        kept = signal.signal(number, signal.SIG_IGN)  # as under nohup
        try:
            with interrupting(), stop_on_signal() as asked:
                send(number)
                assert not asked()
        finally:
            signal.signal(number, kept)
    entered = []

    def inside() -> None:
        with interrupting(), stop_on_signal() as asked:
            entered.append(asked())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert entered == [0]


def test_the_loop_ends_with_the_step_that_was_running() -> None:
    problem, seen = Problem(steps=6), []
    hook = lambda session, policy, experience: seen.append(session.step)  # noqa: E731
    training_loop(problem.policy, problem.objective, problem.session, [hook], lambda: problem.session.step == 2)
    assert seen == [1, 2] and problem.session.step == 2
    training_loop(problem.policy, problem.objective, problem.session)
    whole = Problem(steps=6)
    training_loop(whole.policy, whole.objective, whole.session)
    assert all(value.equal(whole.weights()[name]) for name, value in problem.weights().items())
