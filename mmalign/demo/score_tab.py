"""Something made anywhere, scored: a picture, sound or text that is brought, by every reward of a run, part by part."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmalign.core.errors import DataError, MmalignError
from mmalign.core.types import Audio, Modality, Prompt, Rollout, Scores
from mmalign.demo.answers import chosen_prompt, verdict_of
from mmalign.demo.display import about, box, drawn
from mmalign.demo.scores import score_of_side, why_none
from mmalign.evaluation.table import Role, number_text, roles_of
from mmalign.media.audio import read_audio
from mmalign.media.bounds import PIXELS
from mmalign.media.image import from_pil
from mmalign.run.load import Trained

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["brought", "score_brought", "score_tab", "verdicts_as_html"]

MOST_PARTS = 40


def brought(prompt: Prompt, modality: Modality, output: str | Image | None) -> Rollout:
    """What somebody brought, as one output for `prompt`: a text, a picture, or the path of a sound file.

    Raises:
        DataError: nothing was brought.
        MediaError: a picture of more pixels than are read, or a sound that cannot be read.
    """
    if output is None or output == "":
        raise DataError({"text": "write a text.", "image": "bring a picture.", "audio": "bring a sound."}[modality])
    if modality == "text":
        return Rollout.of([prompt], [str(output)])
    if modality == "audio":
        samples, rate = read_audio(Path(str(output)))
        return Rollout.of([prompt], Audio(samples[None], rate))
    picture: Any = output
    PIXELS.require(picture.width * picture.height, "the picture", f"{picture.width} x {picture.height}")
    return Rollout.of([prompt], from_pil(picture)[None])


def score_brought(rewards: Mapping[str, Callable[[Rollout], Scores]], rollout: Rollout) -> dict[str, Scores | str]:
    """What every reward says of one output, or why it cannot say anything."""
    return {name: verdict_of(reward, rollout) for name, reward in rewards.items()}


def verdicts_as_html(verdicts: Mapping[str, Scores | str], roles: Mapping[str, Role]) -> str:
    """Each reward's number with its parts as bars; parts outside [0, 1] are numbers alone."""
    return "".join(_verdict(name, verdict, roles.get(name, "judge")) for name, verdict in verdicts.items())


def _verdict(name: str, verdict: Scores | str, role: str) -> str:
    head = (
        f'<div style="display: flex; justify-content: space-between; gap: 12px"><span><b>{html.escape(name)}</b> '
        f'<span style="opacity: 0.7">{role}</span></span><b>{html.escape(score_of_side(verdict))}</b></div>'
    )
    why = why_none(verdict)
    reason = f'<div style="opacity: 0.8">{html.escape(why)}</div>' if why else ""
    parts = [] if isinstance(verdict, str) else [(part, float(v[0])) for part, v in verdict.parts.items()]
    known = [(part, value) for part, value in parts if np.isfinite(value)]
    bars = "".join(_bar(part, value) for part, value in known[:MOST_PARTS])
    more = f"<div>{len(known) - MOST_PARTS} more parts</div>" if len(known) > MOST_PARTS else ""
    style = "padding: 10px 14px; margin: 0 0 8px; border-radius: 8px; border: 1px solid var(--border-color-primary)"
    return f'<div class="verdict" style="{style}">{head}{reason}{bars}{more}</div>'


def _bar(name: str, value: float) -> str:
    wide = f"{100 * value:.1f}%" if 0 <= value <= 1 else "0"
    track = (
        '<span style="flex: 1; height: 8px; border-radius: 4px; background: var(--border-color-primary)">'
        f'<span style="display: block; width: {wide}; height: 8px; border-radius: 4px; '
        'background: var(--color-accent)"></span></span>'
    )
    return (
        '<div style="display: flex; align-items: center; gap: 10px; font-size: 0.9em">'
        f'<span style="width: 38%; overflow-wrap: anywhere">{html.escape(name)}</span>{track}'
        f'<span style="min-width: 4.5em; text-align: right">{number_text(value)}</span></div>'
    )


def _shown_beside(prompt: Any, choice: Sequence[Prompt]) -> None:
    """What the chosen prompt is about, below the field that chooses it."""
    import gradio as gr

    recording = about(choice[0])
    picture = gr.Image(drawn(choice[0]), show_label=False, height=200, interactive=False, buttons=[])
    sound = gr.Audio(
        recording and recording[0], label="Sound", interactive=False, buttons=[], visible=recording is not None
    )

    def chosen(number: Any) -> list[Any]:
        recording = about(choice[int(number)])
        return [drawn(choice[int(number)]), gr.Audio(recording and recording[0], visible=recording is not None)]

    prompt.change(chosen, prompt, [picture, sound], show_progress="hidden", api_visibility="private")


def score_tab(run: Trained, choice: Sequence[Prompt]) -> None:
    """Fields, a button and the verdicts, inside the tab that is open."""
    import gradio as gr

    modality = run.parts.policy.modality
    media = any(list(prompt.media) for prompt in choice)
    with gr.Row():
        with gr.Column():
            if media:
                names = [(f"{i + 1}: {prompt.text}", i) for i, prompt in enumerate(choice)]
                text: Any = gr.Dropdown(names, value=0, label="Prompt, with what it is about")
                _shown_beside(text, choice)
            else:
                text = gr.Textbox(choice[0].text if choice else "", label="Prompt", lines=2)
            made = {
                "text": lambda: gr.Textbox(label="Text", lines=4),
                "image": lambda: gr.Image(
                    type="pil", sources=["upload", "clipboard"], label="Picture", height=300, elem_classes="brought"
                ),
                "audio": lambda: gr.Audio(type="filepath", sources=["upload"], label="Sound"),
            }[modality]()
            button = gr.Button("Score", variant="primary", elem_id="score")
        verdicts = gr.HTML(padding=False, elem_id="verdicts")
    roles = roles_of(run.parts.file.to_dict())

    def score(question: Any, output: Any) -> str:
        try:
            prompt = choice[int(question)] if media else chosen_prompt(choice, question or "")
            with torch.no_grad():
                return verdicts_as_html(score_brought(run.rewards, brought(prompt, modality, output)), roles)
        except MmalignError as error:
            return box("This cannot be scored", [str(error)], fault=True)

    button.click(score, [text, made], verdicts, concurrency_limit=1, concurrency_id="model", api_name="score")
