"""One training step of three kinds on tiny models, and the functions of the package that it calls, in their order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import mmalign
from mmalign.adapters import load_adapter
from mmalign.core.config import Trainer
from mmalign.core.files import assets_root
from mmalign.core.rng import Streams
from mmalign.core.types import Preference, Prompt
from mmalign.data.batches import Batches
from mmalign.objectives import objectives
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from mmalign.rewards import Mix, Slot, load_reward
from mmalign.training.loop import training_loop
from mmalign.training.session import Session
from mmalign.training.update import Update
from tests.loading.writers import WRITERS

PACKAGE = Path(mmalign.__path__[0])
Call = tuple[str, str]  # a file of the package, relative to it, and a function in it
SCENES = [Prompt("a red circle"), Prompt("two blue squares")]
TUNES = [Prompt("a slow tune"), Prompt("fast drums"), Prompt("a low flute"), Prompt("bells")]


def picture_grpo(folder: Path) -> list[Call]:
    """`sd3`, `flow`, `clip`."""
    adapter = made("sd3", folder)
    reward = load_reward("clip", checkpoint=str(assets_root() / "scenes_clip"))
    return calls(Flow(adapter, num_inference_steps=3), {"name": "grpo", "group_size": 2, "beta": 0.01}, SCENES, reward)


def text_dpo(folder: Path) -> list[Call]:
    """`causal_lm`, `tokens`, preferences."""
    rows = [Preference(prompt, "good", "bad") for prompt in SCENES]
    return calls(Tokens(made("causal_lm", folder), max_new_tokens=3), {"name": "dpo"}, rows)


def sound_dragon(folder: Path) -> list[Call]:
    """`stable_audio`, `ddpm`, `fad` over a CLAP."""
    encoder = {"name": "clap", "checkpoint": str(assets_root() / "tunes_clap")}
    reward = load_reward("fad", reference=str(assets_root() / "exemplars" / "chimes"), encoder=encoder)
    policy = Ddpm(made("stable_audio", folder), num_inference_steps=3, eta=0)
    return calls(policy, {"name": "dragon"}, TUNES, reward)


CHAINS: dict[str, Callable[[Path], list[Call]]] = {
    "Pictures": picture_grpo,
    "Texts": text_dpo,
    "Sound": sound_dragon,
}


def made(name: str, folder: Path) -> Any:
    """A tiny checkpoint of the family, written and loaded."""
    with torch.random.fork_rng():
        WRITERS[name](folder)
    return load_adapter(name, model=str(folder), device="cpu", lora={"rank": 2})


def calls(policy: Any, objective: dict[str, Any], rows: Sequence[Any], reward: Any = None) -> list[Call]:
    """Every function of the package that the second step of a run calls, at its first call; the first loads."""
    mix = None if reward is None else Mix({"reward": Slot(reward)})
    trainer = Trainer(steps=2, prompts_per_step=len(rows), lr=1e-3)
    session = Session(
        trainer=trainer,
        update_rule=Update(list(policy.adapter.trainable().values()), trainer),
        batches=Batches(rows, len(rows), 0),
        streams=Streams(0),
    )
    seen: dict[Call, None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and not code.co_name.startswith("<") and (file := inside(code.co_filename)) is not None:
            seen.setdefault((file, code.co_qualname.replace("<locals>.", "")))

    def watch(*_: Any) -> None:
        sys.setprofile(note if session.step == 1 else None)

    try:
        training_loop(policy, objectives.build(objective, "objective", reward=mix), session, hooks=[watch])
    finally:
        sys.setprofile(None)
    return list(seen)


def inside(filename: str) -> str | None:
    """The path of a file within the package; None for any other."""
    path = Path(filename)
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else None


def files(chain: Sequence[Call]) -> list[str]:
    """The files of a chain, in the order of their first call."""
    return list(dict.fromkeys(file for file, _ in chain))
