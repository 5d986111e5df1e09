"""Outputs and media of prompts as people see and hear them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.types import Audio, Prompt
from mmalign.evaluation.report.boxes import Draw
from mmalign.media.image import enlarged, to_pil
from mmalign.media.spectrogram import spectrogram

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["about", "answered", "box", "drawn", "pictures", "shown_sound", "sounds", "table_as_html", "texts_as_html"]

SHOWN_PIXELS = 384
Sound = tuple[tuple[int, Any], Any]  # rate and 16-bit samples (S, C), and what it looks like


def pictures(images: Float[Tensor, "B 3 H W"]) -> list[Image]:
    """Small ones enlarged, so that browsers do not blur them."""
    return [_picture(image) for image in images]


def sounds(audio: Audio) -> list[Sound | None]:
    """Each row up to its end; None where it has no samples."""
    ends = [None] * len(audio) if audio.mask is None else audio.mask.sum(1).tolist()
    return [shown_sound(audio.samples[row, :, :end], audio.rate) for row, end in enumerate(ends)]


def answered(answers: Sequence[str], prompt: Prompt, draw: Draw) -> list[Image]:
    """The prompt's picture once per answer, with the boxes that it names; nothing where the prompt has no picture."""
    if "image" not in list(prompt.media):
        return []
    shown = [_picture(prompt.media["image"]) for _ in answers]
    for picture, answer in zip(shown, answers, strict=True):
        draw(prompt, answer, picture)
    return shown


def texts_as_html(texts: Sequence[str]) -> str:
    """Texts as HTML, one below the other, with their line breaks."""
    style = (
        "white-space: pre-wrap; overflow-wrap: anywhere; padding: 10px 14px; margin: 0 0 8px; border-radius: 8px; "
        "border: 1px solid var(--border-color-primary); background: var(--background-fill-primary)"
    )
    marks = [f"<b>{row + 1}</b>  " if len(texts) > 1 else "" for row in range(len(texts))]
    bodies = [html.escape(text) or "<i>(nothing)</i>" for text in texts]
    return "".join(f'<div style="{style}">{mark}{body}</div>' for mark, body in zip(marks, bodies, strict=True))


def table_as_html(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, the first column its rows' names; wider than the page, it moves inside its frame."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in headers)
    lines = (
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return (
        f'<div class="scores" tabindex="0" role="region" aria-label="{html.escape(title)}"><table>'
        f"<caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def box(title: str, lines: Sequence[str], fault: bool = False) -> str:
    """Sentences as HTML, in a frame."""
    colour = "var(--color-red-500, #c0392b)" if fault else "var(--border-color-primary)"
    style = f"overflow-wrap: anywhere; padding: 10px 14px; border-radius: 8px; border: 1px solid {colour}"
    head = f"<b>{html.escape(title)}</b><br>" if title else ""
    return f'<div style="{style}">{head}{"<br>".join(map(html.escape, lines))}</div>'


def drawn(prompt: Prompt) -> Image | None:
    """The picture that a prompt is about, or what its sound looks like."""
    kinds = list(prompt.media)
    if "image" in kinds:
        return _picture(prompt.media["image"])
    sound = about(prompt)
    return sound[1] if sound else None


def about(prompt: Prompt) -> Sound | None:
    """The sound that a prompt is about."""
    return sounds(prompt.media["audio"])[0] if "audio" in list(prompt.media) else None


def _picture(image: Float[Tensor, "3 H W"]) -> Image:
    return enlarged(to_pil(image), SHOWN_PIXELS)


def shown_sound(samples: Float[Tensor, "C S"], rate: int) -> Sound | None:
    """A sound as the page plays it, with its spectrogram; None where it has no samples."""
    if not samples.numel():
        return None
    wave = samples.detach().float().cpu().nan_to_num(0.0, 0.0, 0.0).clamp(-1, 1)
    # integers: gradio would even out the loudness of floats
    return (rate, (wave * 32767).round().to(torch.int16).T.numpy()), to_pil(
        spectrogram(samples.detach().cpu().numpy(), rate, width=640)
    )
