"""Messages of rewards with something wrong in them, drawn at random: rows and scores, or a sentence; nothing else."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmalign.core.types import Audio, Prompt, Rollout, Scores
from mmalign.rewards.models.wire import Limits, Malformed, TooLarge
from mmalign.rewards.models.wire_in import request_in, rollout_of, scores_in, spec_in
from mmalign.rewards.models.wire_out import message_of, scores_out

ODD: list[Any] = [None, True, -1, 0, 2**70, 1e308, "", "t0", "x", "AAAA", [], {}, [[]], {"a": 1}, "é" * 9]
DRAW = torch.Generator().manual_seed(0)
PROMPTS = [Prompt("p", {"image": torch.rand(3, 4, 4, generator=DRAW)}, {"answer": 1}), Prompt("q")]
OUTPUTS = [["a", "b"], torch.rand(2, 3, 4, 4, generator=DRAW), Audio(torch.rand(2, 1, 40, generator=DRAW), 8000)]
SPEC = {"reward": "r", "modalities": ["text"], "range": [0, 1]}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, one in inner for place in places(one, (*path, key))]


def spoilt(message: dict[str, Any], rng: random.Random) -> Any:
    """The message with one to three entries gone, replaced, or with bytes of theirs changed."""
    message = json.loads(json.dumps(message))
    for _ in range(rng.randint(1, 3)):
        *outer, key = rng.choice(places(message)[1:])
        inside = message
        for step in outer:
            inside = inside[step]
        if rng.random() < 0.2:
            del inside[key]
        elif isinstance(inside[key], str) and len(inside[key]) > 40 and rng.random() < 0.8:
            data = bytearray(base64.b64decode(inside[key]))
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
            inside[key] = base64.b64encode(data[: rng.choice([len(data), rng.randrange(len(data))])]).decode()
        else:
            inside[key] = copy.deepcopy(rng.choice(ODD))
    return message


def reading(seed: int) -> Callable[[], Any]:
    rng = random.Random(seed)
    what = rng.randrange(8)
    if what < 6:
        wire: Any = ("safetensors", "files")[what % 2]
        message = spoilt(message_of(Rollout.of(PROMPTS, OUTPUTS[what // 2]), "r", wire), rng)
        body = json.dumps(message).encode()
        body = body[: rng.randrange(len(body))] if rng.random() < 0.05 else body
        return lambda: rollout_of(request_in(body), Limits(rows=8, bytes=100_000, pixels=4096, seconds=1.0))
    if what == 6:
        scores = Scores.of(torch.rand(2, generator=DRAW), per_step=torch.rand(2, 3, generator=DRAW), info=["", "x"])
        answer = spoilt(scores_out(scores), rng)
        return lambda: scores_in(answer, 2)
    limits = {"rows": 1, "bytes": 9}
    spec = spoilt({"mmalign": "1", "protocol": 1, "rewards": {"r": SPEC}, "limits": limits}, rng)
    return lambda: spec_in(spec)


@pytest.mark.timeout(200)
def test_spoilt_messages_are_read_or_refused_in_a_sentence() -> None:
    read = 0
    for seed in range(600):
        make = reading(seed)
        try:
            make()
            read += 1
        except (Malformed, TooLarge) as error:
            assert str(error).strip(), seed
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert 20 < read < 500
