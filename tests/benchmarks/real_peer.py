"""mmalign's GRPO and DPO steps against TRL's on a language model that was trained elsewhere: SmolLM2-135M-Instruct.

    python -m tests.benchmarks real_peer    # with the extra `real`; about twenty minutes

As `trl_peer.py`, which says what both sides have in common: all weights trained, float32, CPU, the same AdamW, free
reward, temperature 1. GRPO has 4 prompts × 4 completions of at most 48 tokens. `full`: prompts of 40 tokens, of plain
text that goes on, so that few completions end by themselves. `long_prompts`: the same, prompts of 128 tokens. `ending`:
questions in the chat template whose answers are short, of 40 tokens too. DPO has 8 pairs over 4 prompts of 40 tokens,
completions of 48 or 42. Steps are taken in turn; processor seconds, wall seconds, and how long completions became.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from pipelines.real.models import model_folder
from tests.benchmarks import language, trl_peer, trl_trainers

SIZE = language.Size(group=4, length=48)
STORY = (
    "The ferry left the harbour before sunrise, and by the time the fog had lifted the islands lay behind us like "
    "a row of sleeping animals. My grandmother sat on the upper deck with a blanket over her knees and told the "
    "captain which of the lighthouses her father had kept, and in what year each of them had been given its "
    "electric lamp. Nobody on board was in a hurry. A boy fed bread to the gulls, two students argued about the "
    "name of a bird, and the engine went on humming its single low note. When the rain came we moved inside, "
    "where the windows were already grey and the tea was strong. She took a folded letter out of her bag, "
    "smoothed it on the table and began to read it aloud, slowly, as if every word had to be weighed before it "
    "could be spoken: the house was still there, the garden had gone wild, and the key hung where it had always "
    "hung, behind the third stone to the left of the door."
)
QUESTIONS = ("What is 3 + 4?", "What is 5 + 2?", "What is 6 + 3?", "What is 8 + 1?")


def tokenizer() -> Any:
    """The model's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder("smollm2"))


def plain(tokens: int) -> list[str]:
    """Four prompts of `tokens` tokens, from four places of the story."""
    reader = tokenizer()
    ids = reader(STORY, add_special_tokens=False)["input_ids"]
    return [reader.decode(ids[16 * i : 16 * i + tokens]) for i in range(language.PROMPTS)]


def ending() -> list[str]:
    """Four questions as the model was taught to be turns, written out: both sides read the same text."""
    reader = tokenizer()
    turns = [[{"role": "user", "content": f"{text} Answer only with the number."}] for text in QUESTIONS]
    return [reader.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]


def pairs() -> list[tuple[str, str, str]]:
    """8 pairs: two of each prompt, completions from further on in the story."""
    reader, prompts = tokenizer(), plain(40)
    ids = reader(STORY, add_special_tokens=False)["input_ids"]
    output = [reader.decode(ids[60 + 7 * i : 60 + 7 * i + 48 - 6 * (i % 2)]) for i in range(16)]
    return [(prompts[i % 4], output[2 * i], output[2 * i + 1]) for i in range(8)]


#: What is measured, and with which prompts.
CASES: dict[str, Callable[[], Any]] = {
    "full": partial(plain, 40),
    "ending": ending,
    "long_prompts": partial(plain, 128),
    "dpo": pairs,
}


def measure(repeats: int = 3) -> dict[str, Any]:
    """Every case, each in a process of its own."""
    facts = json.loads((model_folder("smollm2") / "provenance.json").read_text())
    result: dict[str, Any] = {"model": facts["model"], "source": facts["source"], "threads": torch.get_num_threads()}
    for case in CASES:
        command = [sys.executable, "-m", "tests.benchmarks.real_peer", case]
        result[case] = {
            **_child([*command, "pair", str(repeats)]),
            "memory": {side: _child([*command, side]) for side in ("mmalign", "trl")},
        }
    return result


def _child(command: Sequence[str]) -> Any:
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output.strip().split("\n")[-1])


def _sides(case: str) -> tuple[Callable[[], Callable[[], None]], Callable[[int, trl_trainers.Steps], None]]:
    """What makes mmalign's step, and what takes so many of TRL's."""
    folder, rows = model_folder("smollm2"), CASES[case]()
    if case == "dpo":
        return lambda: language.dpo(language.loaded(folder), rows), partial(trl_trainers.dpo, folder, rows)
    theirs = partial(trl_trainers.grpo, folder, rows, size=SIZE)
    return lambda: language.grpo(language.loaded(folder), rows, SIZE), theirs


def _paired(case: str, repeats: int) -> dict[str, Any]:
    """Medians over pairs of steps, in processor and wall seconds, after a first one of each."""
    make, theirs = _sides(case)
    step = make()
    clocks = {"cpu": time.process_time, "wall": time.perf_counter}
    began: dict[str, float] = {}
    seconds: dict[str, list[dict[str, float]]] = {"mmalign": [], "trl": []}

    def now() -> dict[str, float]:
        return {name: clock() for name, clock in clocks.items()}

    def since(start: dict[str, float]) -> dict[str, float]:
        return {name: clock() - start[name] for name, clock in clocks.items()}

    def before() -> None:
        start = now()
        step()
        seconds["mmalign"].append(since(start))
        began.update(now())

    def after() -> None:
        seconds["trl"].append(since(began))
        print(case, {side: taken[-1] for side, taken in seconds.items()}, file=sys.stderr, flush=True)

    theirs(repeats + 1, trl_trainers.Steps(before, after))
    return summary({side: taken[1:] for side, taken in seconds.items()})


def summary(seconds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of both sides by clock, and the median and range of the ratios of pairs."""
    result: dict[str, Any] = {}
    for clock in ("cpu", "wall"):
        ours, theirs = ([step[clock] for step in seconds[side]] for side in ("mmalign", "trl"))
        ratios = sorted(t / o for o, t in zip(ours, theirs, strict=True))
        result[clock] = {
            "mmalign_seconds": round(statistics.median(ours), 2),
            "trl_seconds": round(statistics.median(theirs), 2),
            "times_faster": round(statistics.median(ratios), 2),
            "range": [round(ratios[0], 2), round(ratios[-1], 2)],
            "pairs": len(ratios),
        }
    return result


def _memory(case: str, side: str) -> dict[str, int]:
    make, theirs = _sides(case)
    if side == "mmalign":
        return trl_peer.peak_of(make())  # the first step is taken where it is made
    rest = [0.0]

    def before() -> None:
        rest[0] = trl_peer.resting()

    theirs(2, trl_trainers.Steps(before, lambda: None))
    return trl_peer.peak_since(rest[0])


if __name__ == "__main__":
    case, what, *more = sys.argv[1:]
    print(json.dumps(_paired(case, int(more[0])) if what == "pair" else _memory(case, what)))
