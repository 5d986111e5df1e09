"""A rewriter at work: a request, how the start and what was learned rewrite it, and the pictures of all three."""

from __future__ import annotations

from typing import Any

from mmalign.core.errors import MmalignError
from mmalign.core.types import Prompt, Rollout
from mmalign.demo.answers import generate_both, pictures_of
from mmalign.demo.display import box, pictures, table_as_html, texts_as_html
from mmalign.demo.scores import table
from mmalign.evaluation.table import roles_of
from mmalign.run.load import Trained

__all__ = ["rewrite", "rewrite_tab"]

SIDES = ("The request as it is", "Rewritten by the start", "Rewritten by what was learned")


def rewrite(run: Trained, request: Prompt, seed: int) -> tuple[list[str], list[Any], tuple[Any, Any]]:
    """The request and its two rewrites, the first picture of each (by the same noise), and the two sides as scored.

    Raises:
        DataError: the run's rewards look at no pictures.
    """
    before, after = generate_both(run, request, 1, seed)
    plain = pictures_of(run, Rollout.of([request], [request.text]))
    texts = [request.text, before.rollout.output[0], after.rollout.output[0]]
    return texts, [None if made is None else made[0] for made in (plain, before.made, after.made)], (before, after)


def rewrite_tab(run: Trained, choice: list[Prompt]) -> None:
    """Fields and three columns, inside the tab that is open, for a run that `generator_of` knows."""
    import gradio as gr

    text = gr.Textbox(choice[0].text if choice else "", label="Request", lines=2)
    seed = gr.Number(0, label="Seed", precision=0)
    button = gr.Button("Rewrite", variant="primary", elem_id="rewrite")
    notice = gr.HTML(visible=False, padding=False)
    columns = []
    with gr.Row():
        for side in SIDES:
            with gr.Column(min_width=240):
                gr.Markdown(f"### {side}")
                columns += [gr.HTML(padding=False), gr.Image(show_label=False, interactive=False, buttons=[])]
    scores = gr.HTML(visible=False, padding=False)
    roles = roles_of(run.parts.file.to_dict())

    def ask(request: str, number: float | None) -> list[Any]:
        try:
            if not (request or "").strip():
                return [gr.HTML(box("", ["Write a request."], fault=True), visible=True), *[gr.skip()] * 7]
            known = next((one for one in choice if one.text.strip() == request.strip()), Prompt(request))
            texts, made, sides = rewrite(run, known, int(number or 0))
        except MmalignError as error:
            return [gr.HTML(box("This cannot be asked", [str(error)], fault=True), visible=True), *[gr.skip()] * 7]
        shown: list[Any] = []
        for each, picture in zip(texts, made, strict=True):
            shown += [texts_as_html([each]), None if picture is None else pictures(picture[None])[0]]
        headers, rows, reasons = table(*sides, roles)
        notice_shown = gr.HTML(box("", reasons), visible=bool(reasons))
        score_table = gr.HTML(table_as_html("Scores of the two rewrites", headers, rows), visible=bool(rows))
        return [notice_shown, *shown, score_table]

    outputs = [notice, *columns, scores]
    button.click(ask, [text, seed], outputs, concurrency_limit=1, concurrency_id="model", api_name="rewrite")
