"""What cannot be loaded is a fault of the set-up, whatever it is of, and loading comes first."""

import multiprocessing
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch

from mmalign.core.errors import ConfigError, DataError, MissingExtra, MmalignError
from mmalign.core.types import Scores
from mmalign.rewards import Guarded, Mix, Slot, load_reward
from mmalign.rewards.engine.foreign_code import prepare, prepare_all
from tests.rewards.doubles import Numbers, answers, pictures, troubled
from tests.rewards.sounds import tones

NOWHERE = "acme/no-such-model"  # on the Hub, which the tests do not reach


@dataclass
class Heavy(Numbers):
    """Needs a model that is there, or not."""

    fault: str = ""

    @cached_property
    def model(self):
        if self.fault:
            raise OSError(f"{self.fault}\nIf this is a private repository, log in.")
        return object()


@pytest.mark.parametrize(
    ("name", "options", "rollout"),
    [
        ("clip", {"checkpoint": NOWHERE}, pictures),
        ("clip_r_precision", {"checkpoint": NOWHERE}, pictures),
        ("clip_s", {"checkpoint": NOWHERE}, pictures),
        ("ref_clip_score", {"checkpoint": NOWHERE}, pictures),
        ("vendi", {"encoder": NOWHERE}, pictures),
        ("contrastive", {"encoder": {"name": "text", "checkpoint": NOWHERE}}, answers),
        ("clap", {"checkpoint": NOWHERE}, lambda: tones(4)),
        ("vendi", {"encoder": {"name": "clap", "checkpoint": NOWHERE}}, lambda: tones(4)),
        ("vendi", {"encoder": {"name": "encodec", "checkpoint": NOWHERE}}, lambda: tones(4)),
        ("vendi", {"encoder": {"name": "latents", "checkpoint": NOWHERE}}, lambda: tones(4)),
        ("yes_no", {"checkpoint": NOWHERE}, pictures),
        ("align_evaluator", {"checkpoint": NOWHERE}, pictures),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_sentence_and_no_rows_fault(name, options, rollout, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reward = load_reward(name, **options)
    with pytest.raises(MmalignError) as caught:
        Guarded("it", reward)(rollout("1", "2") if rollout is answers else rollout())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    with pytest.raises(MmalignError):
        prepare(reward, "it")


def test_what_the_library_said_is_kept_in_a_line():
    with pytest.raises(ConfigError, match=r"rewards\.a: cannot be loaded: OSError: no weights If this is a private"):
        prepare(Heavy(fault="no weights"), "rewards.a")


def test_a_missing_extra_keeps_its_own_words(monkeypatch):
    reward = load_reward("aesthetics")
    monkeypatch.setitem(__import__("sys").modules, "audiobox_aesthetics.infer", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mmalign\[aesthetics\]'"):
        Guarded("nice", reward, monitor=True)(tones(2))


def test_all_faults_come_at_once_and_loading_happens_once():
    slots = {"a": Slot(Heavy(fault="x")), "b": Slot(Heavy()), "c": Slot(Heavy(fault="y"), monitor=True)}
    with pytest.raises(ConfigError) as caught:
        Mix(slots).prepare()
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["rewards.a", "rewards.c"]
    calls = []

    class Once(Heavy):
        @cached_property
        def model(self):
            calls.append(1)

    judge = Guarded("once", Once())
    judge.prepare()
    judge(answers("1"))
    judge(answers("2"))
    assert calls == [1]


def test_parts_of_a_reward_are_loaded_too(picture_folder, tiny_clip, tmp_path):
    """A set reward's encoder and its reference; what a hybrid is made of."""
    gone = tmp_path / "statistics.safetensors"
    gone.write_bytes(b"no statistics")
    with pytest.raises(DataError, match="cannot be read as reference statistics"):
        prepare(load_reward("frechet", reference=str(gone), encoder=str(tiny_clip)), "it")
    reward = load_reward("frechet", reference=str(picture_folder), encoder=str(tiny_clip))
    prepare(reward, "it")
    assert "target" in vars(reward.reward)
    hybrid = load_reward(
        "hybrid", rule={"name": "exact_match"}, model={"name": "bmas", "checkpoint": str(picture_folder)}
    )
    with pytest.raises(MmalignError):
        prepare(hybrid, "it")
    with pytest.raises(MmalignError):
        prepare_all({"one": hybrid, "two": load_reward("length", high=3.0)})


@dataclass
class Importing(Numbers):
    def __call__(self, rollout):
        import no_such_package_anywhere  # noqa: F401


def test_a_package_that_is_missing_is_the_same_for_every_row():
    with pytest.raises(MmalignError, match="a package that the reward uses cannot be imported: ModuleNotFoundError"):
        Guarded("it", Importing(), failed_share=1.0)(answers("1", "2"))


@dataclass
class Unloadable(Numbers):
    isolated = True

    def prepare(self):
        raise OSError("no such weights")

    def __call__(self, rollout):
        return Scores.of(torch.zeros(len(rollout)))


def test_a_reward_in_a_process_of_its_own_says_there_what_it_cannot_load():
    with pytest.raises(MmalignError, match=r"reward 'far', in a process of its own: .*OSError: no such weights"):
        Guarded("far", Unloadable(), failed_share=1.0)(answers("1"))
    judge, before = Guarded("near", troubled(), failed_share=1.0), set(multiprocessing.active_children())
    judge.prepare()
    assert len(set(multiprocessing.active_children()) - before) == 1
    judge.close()
    assert not set(multiprocessing.active_children()) - before
