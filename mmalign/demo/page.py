"""The page itself: a prompt, a seed, both sides, a table. Everything that it shows comes from the files beside it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from mmalign.core.errors import MissingExtra, MmalignError
from mmalign.core.protocols import Foreign
from mmalign.core.types import Prompt
from mmalign.demo.answers import (
    MOST_OUTPUTS,
    Side,
    chosen_prompt,
    generate_both,
    generator_of,
    known,
    likeliest,
)
from mmalign.demo.display import about, answered, box, drawn, pictures, sounds, table_as_html, texts_as_html
from mmalign.demo.rewrite_tab import rewrite_tab
from mmalign.demo.score_tab import score_tab
from mmalign.demo.scores import table
from mmalign.demo.serving import LIMITS, WAITING
from mmalign.evaluation.card import escaped
from mmalign.evaluation.loading_lines import plain_name
from mmalign.evaluation.report.boxes import Draw, drawing
from mmalign.evaluation.report.gallery import facts
from mmalign.evaluation.table import roles_of
from mmalign.media.kinds import bound_pillow
from mmalign.run.load import Trained

__all__ = ["page", "require_gradio"]

CHOICE = "Prompts to choose from"


def require_gradio() -> None:
    """Raise MissingExtra where gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtra("mmalign demo", "demo")


def page(run: Trained, name: str) -> Any:
    """A `gradio.Blocks` that asks `run`, one request at a time: start beside result, rewrites, scores."""
    import gradio as gr

    bound_pillow()  # gradio decodes what is brought before anybody is asked
    choice, draw = known(run), drawing(run.parts.file.to_dict())
    with gr.Blocks(title=f"mmalign: {name}", analytics_enabled=False) as blocks:
        gr.Markdown(_heading(run, name))
        with gr.Tabs():
            with gr.Tab("Play"):
                _play(blocks, run, choice, draw)
            if generator_of(run) is not None:
                with gr.Tab("Rewrite"):
                    rewrite_tab(run, choice)
            with gr.Tab("Score"):
                score_tab(run, choice)
        gr.Markdown(LIMITS)
    blocks.queue(max_size=WAITING)
    return blocks


def _play(blocks: Foreign, run: Trained, choice: list[Prompt], draw: Draw | None) -> None:
    """A prompt and a seed, start beside result."""
    import gradio as gr

    fields = _fields(blocks, run, choice)
    button = gr.Button("Generate", variant="primary")
    notice = gr.HTML(visible=False, padding=False)
    sides = _sides(run.parts.policy.modality, ("Start", f"Learned, step {run.step}"), draw)
    scores = gr.HTML(visible=False, padding=False)
    gr.on(
        [button.click, fields[0].submit],
        _asking(run, choice, draw),
        inputs=fields,
        outputs=[notice, *sides[0], *sides[1], scores],
        concurrency_limit=1,
        concurrency_id="model",  # of all tabs: the start's weights and the learned ones take turns
        api_name="ask",
    )


def _heading(run: Trained, name: str) -> str:
    file = run.parts.file
    base = plain_name(str(file.adapter.get("model") or ""))
    what = f"{file.objective['name']} on {file.adapter['name']}{f' ({base})' if base else ''}"
    steps = f"{run.step} update{'' if run.step == 1 else 's'}"
    heading = f"# {escaped(name)}\n{escaped(what)}. *Start* is what the run began with, *Learned* what came of {steps}"
    if likeliest(run):
        return f"{heading}: of both the likeliest text (`policy.eval_temperature` is 0)."
    return f"{heading}; outputs of one number come from the same noise."


def _fields(blocks: Foreign, run: Trained, choice: Sequence[Prompt]) -> list[Any]:
    """The prompt's text, how many outputs, the seed; where prompts have media their number in `choice`, a picture."""
    import gradio as gr

    kinds = {kind for prompt in choice for kind in prompt.media}
    several = not likeliest(run)
    with gr.Row():
        with gr.Column(scale=3):
            text = gr.Textbox(choice[0].text if choice else "", label="Prompt", lines=2)
            with gr.Row():
                count = gr.Slider(1, MOST_OUTPUTS, 4 if several else 1, step=1, label="Outputs", visible=several)
                seed = gr.Number(0, label="Seed", precision=0, visible=several)
        with gr.Column(scale=2, visible=bool(kinds)):
            picture = gr.Image(
                type="pil",
                sources=["upload", "clipboard"],
                label="Picture",
                height=260,
                visible="image" in kinds,
            )
            sound = gr.Audio(label="Sound", interactive=False, visible="audio" in kinds)
    number = gr.State(None)
    if kinds:
        _choosing(blocks, choice, [text, number, picture, sound])
    elif choice:
        gr.Examples(
            [[prompt.text] for prompt in choice], [text], examples_per_page=len(choice), label=CHOICE, elem_id="prompts"
        )
    return [text, count, seed, *([number] if kinds else []), *([picture] if "image" in kinds else [])]


def _choosing(blocks: Foreign, choice: Sequence[Prompt], fields: Sequence[Any]) -> None:
    """A gallery of prompts with media: a click puts one into the fields; a picture of one's own takes its place."""
    import gradio as gr

    shown = [(drawn(prompt), None) for prompt in choice]
    gr.Markdown(CHOICE)
    gallery = gr.Gallery(
        shown,
        show_label=False,
        columns=6,
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_classes="choices",
    )

    def chosen(index: int) -> tuple[Any, ...]:
        sound = about(choice[index])
        # A file of its own: gradio names files by content, and would write that of the gallery while it is fetched.
        seen = shown[index][0]
        picture = None if sound or seen is None else seen.convert("RGBA")
        return choice[index].text, index, picture, sound and sound[0]

    def clicked(event: Any) -> tuple[Any, ...]:
        return chosen(event.index)

    clicked.__annotations__["event"] = gr.SelectData  # by which gradio knows what to pass
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    _, number, picture, _ = fields
    gallery.select(clicked, None, fields, **quiet)
    gr.on([picture.upload, picture.clear], lambda: None, None, number, **quiet)
    blocks.load(lambda: chosen(0), None, fields, **quiet)  # not before: others bring their own


def _sides(modality: str, labels: Sequence[str], draw: Draw | None) -> list[list[Any]]:
    """The components of both sides; `_filled` gives them their values in this order. Sounds stand in pairs."""
    import gradio as gr

    if modality != "audio":
        with gr.Row():
            return [_side(modality, label, draw) for label in labels]
    sides: list[list[Any]] = [[] for _ in labels]
    for row in range(MOST_OUTPUTS):
        with gr.Row(elem_classes="slots"):
            for side, label in zip(sides, labels, strict=True):
                with gr.Column(min_width=280):
                    side += _slot(f"{row + 1}: {label}")
    return sides


def _side(modality: str, label: str, draw: Draw | None) -> list[Any]:
    import gradio as gr

    with gr.Column(min_width=280):
        gr.Markdown(f"### {label}")
        made: dict[str, Any] = {"columns": 2, "object_fit": "contain", "height": "auto", "elem_classes": "made"}
        if modality == "image":
            return [gr.Gallery(show_label=False, interactive=False, **made)]
        if draw:
            gr.Markdown("Boxes: the true ones green, the answer's orange.")
        boxes = gr.Gallery(show_label=False, visible=False, **made)
        return [boxes, gr.HTML(padding=False)]


def _slot(label: str) -> tuple[Any, Any]:
    import gradio as gr

    sound = gr.Audio(label=label, interactive=False, visible=False, buttons=["download"])
    return sound, gr.Image(show_label=False, buttons=[], interactive=False, visible=False)


def _filled(side: Side, modality: str, draw: Draw | None) -> list[Any]:
    import gradio as gr

    output, prompt = side.rollout.output, side.rollout.prompts[0]
    if modality == "image":
        return [_numbered(pictures(output))]
    if modality == "audio":
        slots = [*sounds(output), *[None] * (MOST_OUTPUTS - len(output))]
        values = [value for sound in slots for value in (sound or (None, None))]
        kinds: tuple[Any, Any] = (gr.Audio, gr.Image)
        return [kinds[i % 2](value, visible=value is not None) for i, value in enumerate(values)]
    marked = _numbered(answered(output, prompt, draw)) if draw else []
    if side.made is not None:
        marked = _numbered(pictures(side.made))
    return [gr.Gallery(marked, visible=bool(marked)), texts_as_html(output)]


def _numbered(pictures: Sequence[Any]) -> list[tuple[Any, str | None]]:
    return [(picture, f"{row + 1}" if len(pictures) > 1 else None) for row, picture in enumerate(pictures)]


def _asking(run: Trained, choice: Sequence[Prompt], draw: Draw | None) -> Callable[..., list[Any]]:
    """What the button does; faults of what was asked are a sentence on the page, and the last results stay."""
    import gradio as gr

    roles = roles_of(run.parts.file.to_dict())
    modality = run.parts.policy.modality
    outputs = 2 + 2 * {"image": 1, "audio": 2 * MOST_OUTPUTS}.get(modality, 2)

    def ask(text: str, count: float, seed: float | None, number: int | None = None, picture: Any = None) -> list[Any]:
        try:
            prompt = chosen_prompt(choice, text or "", number, picture)
            before, after = generate_both(run, prompt, int(count), int(seed or 0))
        except MmalignError as error:
            notice = gr.HTML(box("This cannot be asked", [str(error)], fault=True), visible=True)
            return [notice, *[gr.skip()] * (outputs - 1)]
        headers, rows, reasons = table(before, after, roles)
        scores = gr.HTML(table_as_html("Scores", headers, rows), visible=bool(rows))
        cut = [f"{reader} does not read this to its end; write less." for reader in before.cut]
        lines = [*(f"{name}: {value}" for name, value in facts(prompt)), *cut, *reasons]
        notice = gr.HTML(box("", lines), visible=bool(lines))
        return [notice, *_filled(before, modality, draw), *_filled(after, modality, draw), scores]

    return ask
