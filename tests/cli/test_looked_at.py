"""What commands print: whole sentences, the comments of ready files, a line at once, numbers that mean something."""

import pytest

from mmalign.cli.listing import configs, first_sentence, head_comment
from mmalign.run.hooks import headline
from mmalign.run.registries import REGISTRIES
from tests.cli.conftest import call  # noqa: F401


@pytest.mark.parametrize("kind", [*REGISTRIES, "configs"])
def test_a_list_tells_in_whole_sentences(kind, call, monkeypatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "2000")
    code, out, _ = call("list", kind)
    lines = [line.strip() for line in out.splitlines()]
    rows = [line for line in lines if line and not line.startswith((kind, "name "))]
    assert code == 0 and rows
    paragraphs = [" ".join(line.split()[1:]) for line in rows]
    assert all(text for text in paragraphs)
    assert not [text for text in paragraphs if text.endswith((",", ":", ";", " the", " of", " and", " (the"))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One thing.\nAnother.", "One thing."),
        ("Stable Diffusion 1.5 and 2, and so\non; one GPU", "Stable Diffusion 1.5 and 2, and so on; one GPU"),
        ("Judged, e.g. Twice. Then more", "Judged, e.g. Twice."),
        ("", ""),
    ],
)
def test_the_first_sentence_is_whole(text, sentence):
    assert first_sentence(text) == sentence


@pytest.mark.parametrize("name", ["text/lm_grpo", "scenes/grpo_verifier"])
def test_show_keeps_what_a_ready_file_says_of_itself(name, call):  # noqa: F811
    said = head_comment(configs()[name])
    assert said.startswith("# ") and call("show", name)[1].startswith(f"{said}\n")


def test_every_ready_file_says_what_it_is_for():
    assert not [name for name, path in configs().items() if not head_comment(path)]


def test_the_headline_has_a_loss_where_texts_are_imitated_and_of_a_set_its_value():
    assert ("loss", 1.25) in headline({"fit/per_token": -1.25, "fit/target": -9.0, "grad/norm": 1.0})
    shown = dict(headline({"reward/fad": -4e-11, "reward/fad/parts/set": -3.5, "reward/clip": -0.0}))
    assert shown["reward/fad"] == -3.5 and str(shown["reward/clip"]) == "0.0"


def test_a_long_measurement_says_how_far_it_is_and_a_short_one_nothing(capsys):
    from mmalign.core.pace import Pace

    for seconds, told in ((0.0, "measured 4 of 8\n"), (60.0, "")):
        pace = Pace(seconds=seconds)
        pace(4, 8)
        pace(8, 8)
        assert capsys.readouterr() == ("", told)
