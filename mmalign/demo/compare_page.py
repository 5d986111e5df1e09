"""A page on which people vote, not knowing which is which: pairs, keys, results when they ask for them, an export."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.core.errors import MmalignError
from mmalign.demo.display import box, shown_sound, texts_as_html
from mmalign.demo.pairs import OutputPairs, write_preferences
from mmalign.demo.votes import (
    Place,
    Vote,
    Votes,
    a_stands_left,
    choice_of,
    next_pair,
    reward_agreement,
    vote_win_rate,
    voters_agreement,
)
from mmalign.evaluation.bootstrap import Interval
from mmalign.evaluation.records import Evaluation
from mmalign.media.audio import read_audio
from mmalign.media.image import enlarged, to_pil

__all__ = ["KEYS", "compare_page", "results_as_html"]

SHOWN_PIXELS = 512
#: Arrow keys are the buttons, but where somebody writes.
KEYS = """<script>
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const names = { ArrowLeft: "vote-left", ArrowDown: "vote-tie", ArrowRight: "vote-right", Backspace: "vote-undo" };
  const button = names[event.key] && document.getElementById(names[event.key]);
  if (button) { event.preventDefault(); button.click(); }
});
</script>"""
LABELS: dict[Place, str] = {"left": "← Left", "tie": "↓ Neither", "right": "Right →"}


def compare_page(pairs: OutputPairs, votes: Votes, export: Path) -> Any:
    """A `gradio.Blocks` that shows pairs of `pairs`, keeps `votes`, and exports them into the folder `export`."""
    import gradio as gr

    with gr.Blocks(title="mmalign: compare", analytics_enabled=False) as blocks:
        gr.Markdown(
            "# Which one is better?\nTwo outputs for one prompt, in an order that is drawn for each voter. "
            "Keys: ← left, → right, ↓ neither, ⌫ undo."
        )
        question = gr.HTML(padding=False)
        token = gr.Textbox(visible=False)
        with gr.Row(equal_height=True):
            sides = [_slots(pairs.a.modality, name) for name in ("Left", "Right")]
        with gr.Row():
            buttons = {
                place: gr.Button(LABELS[place], elem_id=f"vote-{place}", variant="secondary", min_width=90)
                for place in LABELS
            }
        undo = gr.Button("⌫ Undo my last vote", elem_id="vote-undo", size="sm")
        voter = gr.Textbox("anonymous", label="Your name", max_lines=1, max_length=80)
        with gr.Accordion("Results: they say which is which", open=False):
            with gr.Row():
                show = gr.Button("Show results", elem_id="show-results", min_width=120)
                write = gr.Button("Export", elem_id="export", min_width=120)
            results = gr.HTML(elem_id="results")
        view = [question, token, *[slot for side in sides for slot in side]]
        quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 1, "concurrency_id": "votes"}
        shown = _showing(pairs, votes)
        for place, button in buttons.items():
            button.click(_voting(pairs, votes, shown, place), [voter, token], view, api_name=place, **quiet)
        undo.click(_undoing(votes, shown), [voter], view, api_name="undo", **quiet)
        voter.change(shown, [voter], view, api_visibility="private", **quiet)
        blocks.load(shown, [voter], view, api_visibility="private", **quiet)
        show.click(lambda: results_as_html(pairs, votes.all()), None, results, api_name="results", **quiet)
        write.click(_exporting(pairs, votes, export), None, results, api_name="export", **quiet)
    return blocks


def _slots(modality: str, label: str) -> list[Any]:
    """What shows one output; `_values` fills it."""
    import gradio as gr

    with gr.Column(min_width=140 if modality == "image" else 280):  # pictures stay beside one another on a phone
        if modality == "text":
            gr.Markdown(f"**{label}**")
            return [gr.HTML(padding=False)]
        whole: dict[str, Any] = (
            {"label": label, "elem_classes": "voted"} if modality == "image" else {"show_label": False}
        )
        picture = gr.Image(interactive=False, buttons=[], **whole)
        return [picture] if modality == "image" else [gr.Audio(label=label, interactive=False, buttons=[]), picture]


def _values(evaluation: Evaluation, row: int) -> list[Any]:
    if evaluation.modality == "text":
        return [texts_as_html([evaluation.outputs[row]])]
    if evaluation.modality == "image":
        return [enlarged(to_pil(evaluation.outputs[row]), SHOWN_PIXELS)]
    return list(shown_sound(*read_audio(evaluation.files[row])) or (None, None))


View = Callable[[str], list[Any]]


def _showing(pairs: OutputPairs, votes: Votes) -> View:
    """The next pair of a voter, as values of the page's fields."""

    def shown(voter: str) -> list[Any]:
        given = votes.all()
        row, total = next_pair(given, voter, pairs.count, pairs.same), pairs.count - len(pairs.same)
        mine = sum(vote.voter == voter for vote in given)
        if row is None:
            empty = [None] * (2 * (2 if pairs.a.modality == "audio" else 1))
            return [box("", [f"You have seen all {total} pairs. Thank you."]), "", *empty]
        sides = [_values(pairs.a, row), _values(pairs.b, row)]
        left, right = sides if a_stands_left(voter, row) else sides[::-1]
        return [_question(pairs, row, f"{mine + 1} of {total}"), str(row), *left, *right]

    return shown


def _question(pairs: OutputPairs, row: int, where: str) -> str:
    from mmalign.media.image import data_uri

    picture = pairs.a.prompt_pictures.get(row)
    about = ""
    if picture is not None:
        about = (
            f'<img alt="what it is about" style="max-height: 220px" src="{data_uri(enlarged(to_pil(picture), 220))}">'
        )
    text = html.escape(pairs.prompt(row).shown)
    return f'<p style="opacity: 0.7; margin: 0">{where}</p><h3 id="asked" style="margin: 4px 0 8px">{text}</h3>{about}'


def _voting(pairs: OutputPairs, votes: Votes, shown: View, place: Place) -> Callable[[str, str], list[Any]]:
    """A vote is about the pair that the voter's page shows, whatever was pressed before: a second press changes it."""

    def vote(voter: str, token: str) -> list[Any]:
        if token.isdigit() and int(token) < pairs.count:
            votes.add(Vote(int(token), voter, choice_of(place, a_stands_left(voter, int(token)))))
        return shown(voter)

    return vote


def _undoing(votes: Votes, shown: View) -> View:
    def undo(voter: str) -> list[Any]:
        votes.undo(voter)
        return shown(voter)

    return undo


def _exporting(pairs: OutputPairs, votes: Votes, export: Path) -> Callable[[], str]:
    def write() -> str:
        try:
            count = write_preferences(pairs, votes.all(), export)
        except MmalignError as error:
            return box("Nothing was exported", [str(error)], fault=True)
        about = ", image: image" if any(row in pairs.a.prompt_pictures for row in range(pairs.count)) else ""
        return box(
            f"{count} rows",
            [str(export / "rows.jsonl"), f"data: {{name: preferences, path: {export / 'rows.jsonl'}{about}}}"],
        )

    return write


def results_as_html(pairs: OutputPairs, votes: list[Vote]) -> str:
    """What the votes say: who wins how often, how far voters agree, and which reward prefers what they prefer."""
    if not votes:
        return box("", ["There are no votes yet."])
    counts = {choice: sum(vote.choice == choice for vote in votes) for choice in ("a", "tie", "b")}
    voters = len({vote.voter for vote in votes})
    lines = [
        f"A is {pairs.names[0]}, B is {pairs.names[1]}.",
        f"{len(votes)} votes of {voters} voter{'' if voters == 1 else 's'} on {len({v.pair for v in votes})} pairs: "
        f"A {counts['a']}, neither {counts['tie']}, B {counts['b']}.",
        f"B wins {_percent(vote_win_rate(votes))} (a tie is half a win).",
    ]
    among = voters_agreement(votes)
    lines.append(f"Two voters agree on {_percent(among)}." if among.n else "No pair was seen by two voters yet.")
    for name in pairs.rewards():
        agreement = reward_agreement(votes, pairs.a.values(name), pairs.b.values(name))
        lines += [f"{name} prefers what voters prefer in {_percent(agreement)}."] if agreement.n else []
    return box("Results", lines)


def _percent(interval: Interval) -> str:
    low, high = (float(np.clip(bound, 0, 1)) for bound in (interval.low, interval.high))
    return f"{100 * interval.value:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %, of {interval.n}"
