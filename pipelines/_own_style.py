"""A folder as someone would bring it: 200 captioned pictures or sounds of one style, which no caption names.

Every thing in the pictures is green, every tune is played by a bell; the captions say nothing of it. What the verifier
is asked is kept apart, as `request`: the caption with the style in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from mmalign.core.files import write_beside
from mmalign.miniworld import grammar, language
from mmalign.miniworld.scenes import painted, shaded
from mmalign.miniworld.tunes import grammar as tunes
from mmalign.miniworld.tunes import language as tune_language
from mmalign.miniworld.tunes.clockwork import play_in_step
from mmalign.miniworld.tunes.tune import RATE

COLOUR, TIMBRE = "green", "bell"
_TRIES = 20_000  # works drawn for prompts that no caption of the folder has
Work = tuple[str, str, Callable[[Path], None]]  # a caption, what is asked of the verifier, what writes the file


def pictures(rng: np.random.Generator) -> Iterator[Work]:
    """Scenes whose things are all green, without end."""
    from mmalign.media.image import write_image

    while True:
        drawn = grammar.sample_request(rng, "any")
        plain, full = (_coloured(drawn, colour) for colour in (None, COLOUR))
        if plain is None or full is None:
            continue
        scene = grammar.sample_scene(full, rng)
        if all(thing.color == COLOUR for thing in scene.things):
            picture = torch.from_numpy(painted(scene, shaded(scene, rng)))
            yield plain.text, full.text, lambda path, made=picture: write_image(made, path)  # type: ignore[misc]


def _coloured(request: language.Request, colour: str | None) -> language.Request | None:
    """The request with all its things of `colour`; None where its groups could not be told apart."""
    groups = tuple(group._replace(kind=group.kind._replace(color=colour)) for group in request.groups)
    try:
        return language.make_request(groups, request.relation)
    except language.CaptionError:
        return None


def sounds(rng: np.random.Generator) -> Iterator[Work]:
    """Tunes that are all played by a bell, without end."""
    from mmalign.media.audio import write_audio

    while True:
        stated = {k: v for k, v in tunes.sample_request(rng, "any").stated.items() if k != "timbre"}
        full = tune_language.make_request(stated | {"timbre": TIMBRE})
        clip = torch.from_numpy(play_in_step(tunes.sample_tune(full, rng), rng))[None]
        plain = tune_language.make_request(stated)
        yield plain.text, full.text, lambda path, made=clip: write_audio(made, RATE, path)  # type: ignore[misc]


def write_folder(kind: str, folder: Path, seed: int, count: int = 200, questions: int = 128) -> tuple[Path, Path]:
    """Write `count` works with their captions into `folder`, and beside it prompts of these and of others.

    Args:
        kind: "image" or "audio".
        folder: of the works, `000.png` beside `000.txt`; it must not be there.
        seed: decides everything.
        count: works.
        questions: prompts to measure on, each once; as long as there are others, no caption of the folder is one.

    Returns:
        The files of prompts to train on and to measure on, rows of `prompt` and `request`.
    """
    folder.mkdir(parents=True)
    works = (pictures if kind == "image" else sounds)(np.random.default_rng([97, seed]))
    suffix, own = (".png" if kind == "image" else ".wav"), dict[str, str]()
    for number in range(count):
        caption, request, write = next(works)
        write(folder / f"{number:03}{suffix}")
        (folder / f"{number:03}.txt").write_text(caption)
        own[caption] = request
    others: dict[str, str] = {}
    for tries in range(_TRIES):
        caption, request, _ = next(works)
        if caption not in own or tries > _TRIES // 10:
            others.setdefault(caption, request)
        if len(others) == questions:
            break
    return _written(folder, "own", own), _written(folder, "others", others)


def _written(folder: Path, name: str, rows: dict[str, str]) -> Path:
    file = folder.with_name(f"{folder.name}_{name}.jsonl")
    with write_beside(file) as beside:
        beside.write_text("".join(json.dumps({"prompt": p, "request": r}) + "\n" for p, r in rows.items()))
    return file
