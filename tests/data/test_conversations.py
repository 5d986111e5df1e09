"""Rows of conversations: what is asked, what is answered, and the sentences for those that cannot be used."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.conversation import Answer
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Prompt, groups
from mmalign.data.sources.conversations import Conversations
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.media.image import write_image
from tests.data.conversations import assistant, jsonl, parquet, system, user

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
WHERE = {"in": "Oslo"}
CHAT = [system("be brief"), user("hi"), assistant("hello"), user("how are you?")]


def grey(path: Path, value: float) -> str:
    write_image(torch.full((3, 4, 4), value), path)
    return path.name


def test_a_prompt_is_a_text_or_a_conversation(tmp_path: Path) -> None:
    (chat,) = Prompts(jsonl(tmp_path / "a.jsonl", {"prompt": CHAT, "answer": "fine"})).training_items()
    assert (chat.text, list(chat.messages), chat.meta) == ("how are you?", CHAT, {"answer": "fine"})
    assert chat.shown == "system: be brief\nuser: hi\nassistant: hello\nuser: how are you?"
    (one,) = Prompts(jsonl(tmp_path / "b.jsonl", {"prompt": [user("hi")]})).training_items()
    assert one == Prompt("hi") and one.shown == one.question == "hi"
    (parts,) = Prompts(
        jsonl(tmp_path / "c.jsonl", {"prompt": [user([{"type": "text", "text": "hi"}])]})
    ).training_items()
    assert parts == Prompt("hi")


def test_rows_that_differ_in_an_earlier_turn_are_other_prompts(tmp_path: Path) -> None:
    other = [system("be long"), *CHAT[1:]]
    rows = [{"prompt": CHAT}, {"prompt": other}, {"prompt": CHAT}]
    prompts = list(Prompts(jsonl(tmp_path / "a.jsonl", *rows)).training_items())
    assert groups(prompts).tolist() == [0, 1, 0]
    many = [{"prompt": [user(f"first {i}"), assistant("ok"), user("go on")]} for i in range(20) for _ in range(2)]
    source = Prompts(jsonl(tmp_path / "m.jsonl", *many), held_out=0.25)
    training, aside = ({p.question for p in side} for side in (source.training_items(), source.held_out_items()))
    assert (len(training), len(aside)) == (15, 5) and not training & aside


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_messages_hold_the_answer_too(column: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", {column: [*CHAT, assistant("fine")], "id": 7})
    (prompt,) = Prompts(file).training_items()
    assert list(prompt.messages) == CHAT and prompt.meta == {"id": 7, "target": "fine"}
    (example,) = Conversations(file).training_items()
    assert example.output == "fine" and example.prompt.messages == prompt.messages and example.prompt.meta == {"id": 7}


def test_every_turn_of_the_model_can_be_imitated(tmp_path: Path) -> None:
    rows = [{"messages": [*CHAT, assistant("fine")]}, {"messages": [user("a"), assistant("b")]}]
    source = Conversations(jsonl(tmp_path / "a.jsonl", *rows), imitate="each")
    examples = source.training_items()
    assert [(e.prompt.text, e.output) for e in examples] == [("hi", "hello"), ("how are you?", "fine"), ("a", "b")]
    assert [len(p.messages) for p in examples.prompts()] == [2, 4, 0] and len(examples[1:]) == 2
    many = [{"messages": [user("hi"), assistant("yes"), user(f"{i}"), assistant("no")]} for i in range(20)]
    whole = Conversations(jsonl(tmp_path / "m.jsonl", *many), imitate="each", held_out=0.25)
    assert (len(whole.training_items()), len(whole.held_out_items())) == (30, 10)  # no conversation is parted
    for imitate in ("all", "each"):
        with pytest.raises(DataError, match=rf"imitate: {imitate} is of whole conversations"):
            file = jsonl(tmp_path / "c.jsonl", {"prompt": "a", "completion": "b"})
            Conversations(file, imitate=imitate).training_items()


def test_all_turns_of_the_model_are_one_answer(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [*CHAT, assistant("fine")], "id": 1},
        {"messages": [user("a"), assistant("b")]},
    ]
    several, single = Conversations(jsonl(tmp_path / "a.jsonl", *rows), imitate="all").training_items()
    assert list(several.prompt.messages) == CHAT[:2] and several.prompt.text == "hi" and several.prompt.meta["id"] == 1
    assert isinstance(several.output, Answer) and list(several.output.turns) == [*CHAT[2:], assistant("fine")]
    assert several.output == "assistant: hello\nuser: how are you?\nassistant: fine"
    assert copy.deepcopy(several.output).turns == several.output.turns
    assert single.prompt == Prompt("a") and type(single.output) is str
    many = [{"messages": [user("hi"), assistant(f"{i}"), user("so"), assistant("no")]} for i in range(20)]
    whole = Conversations(jsonl(tmp_path / "m.jsonl", *many), imitate="all", held_out=0.25)
    assert (len(whole.training_items()), len(whole.held_out_items())) == (15, 5)
    seen = [user("hi"), assistant("yes"), user([{"type": "image"}, {"type": "text", "text": "so"}]), assistant("no")]
    grey(tmp_path / "a.png", 0.5)
    with pytest.raises(DataError, match=r"s\.jsonl:1: 'messages' shows something behind its first answer; set imitate"):
        file = jsonl(tmp_path / "s.jsonl", {"messages": seen, "image": "a.png"})
        Conversations(file, imitate="all").training_items()


def test_an_answer_may_call_tools(tmp_path: Path) -> None:
    for number, arguments in enumerate((WHERE, json.dumps(WHERE))):
        call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
        row = {"messages": [user("rain?"), {"role": "assistant", "tool_calls": [call]}], "tools": [WEATHER]}
        (example,) = Conversations(jsonl(tmp_path / f"{number}.jsonl", row)).training_items()
        assert isinstance(example.output, Answer) and example.prompt.tools == (WEATHER,)
        assert example.output.turns[0]["tool_calls"][0]["function"] == {"name": "weather", "arguments": WHERE}
        assert example.output == '[calls {"name": "weather", "arguments": {"in": "Oslo"}}]'
    thought = {**assistant("no"), "reasoning_content": "It is dry."}
    (example,) = Conversations(jsonl(tmp_path / "t.jsonl", {"messages": [user("q"), thought]})).training_items()
    assert isinstance(example.output, Answer) and example.output == "no"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"name": "f", "arguments": "{in: Oslo"}, r"the arguments of a call are no JSON"),
        ({"name": "f", "arguments": [1]}, r"the arguments of a call are \[1\]; expected an object"),
        ({"function": {"arguments": {}}}, r"has the call .*; expected \{'type': 'function'"),
        ("f()", r"has the call 'f\(\)'; expected"),
    ],
)
def test_calls_that_cannot_be_read(call: Any, sentence: str, tmp_path: Path) -> None:
    row = {"messages": [user("rain?"), {"role": "assistant", "tool_calls": [call]}]}
    with pytest.raises(DataError, match=rf"c\.jsonl:1: 'messages': message 2 \(assistant\).*{sentence}"):
        Conversations(jsonl(tmp_path / "c.jsonl", row)).training_items()


def test_prompts_with_completions(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
    texts = Conversations(jsonl(tmp_path / "t.jsonl", *rows)).training_items()
    assert [(e.prompt, e.output) for e in texts] == [(Prompt("a"), "b"), (Prompt("c"), "d")]
    (chat,) = Conversations(
        jsonl(tmp_path / "m.jsonl", {"prompt": CHAT, "completion": [assistant("x")]})
    ).training_items()
    assert list(chat.prompt.messages) == CHAT and chat.output == "x"


def test_each_of_several_completions_is_an_example(tmp_path: Path) -> None:
    for name in ("a", "b"):
        grey(tmp_path / f"{name}.png", 0.2)
    rows = [{"image": "a.png", "captions": ["one", "two"]}, {"image": "b.png", "captions": ["three"]}]
    columns: dict[str, Any] = {"prompt": "=Describe it.", "completion": "captions"}
    source = Conversations(jsonl(tmp_path / "c.jsonl", *rows), image="image", columns=columns)
    examples = source.training_items()
    assert [(e.prompt.text, list(e.prompt.media), e.output) for e in examples] == [
        ("Describe it.", ["image"], word) for word in ("one", "two", "three")
    ]
    many = [{"prompt": f"q{i}", "completion": ["a", "b"]} for i in range(12)]
    parted = Conversations(jsonl(tmp_path / "m.jsonl", *many), held_out=0.25)
    assert (len(parted.training_items()), len(parted.held_out_items())) == (18, 6)
    with pytest.raises(DataError, match=r"w\.jsonl:2: 'completion' is \[\]; expected texts"):
        Conversations(jsonl(tmp_path / "w.jsonl", many[0], {**many[0], "completion": []})).training_items()


def test_unpaired_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "a", "completion": f"b{i}", "label": i % 2 == 0} for i in range(4)]
    file = jsonl(tmp_path / "k.jsonl", *rows)
    assert [e.output for e in Conversations(file).training_items()] == ["b0", "b2"]
    assert "by 'label', 2 of 4 completions are no good and are left out" in caplog.text
    with pytest.raises(DataError, match=r"k\.jsonl: holds unpaired rows .* no objective here learns from one judged"):
        Preferences(file).training_items()
    with pytest.raises(DataError, match=r"'label' is true in no row"):
        Conversations(jsonl(tmp_path / "n.jsonl", rows[1])).training_items()


def test_shared_turns_are_the_prompt(tmp_path: Path) -> None:
    sides = {"chosen": [*CHAT, assistant("well")], "rejected": [*CHAT, assistant("bad")]}
    alone = {"chosen": [assistant("well")], "rejected": [assistant("bad")]}
    texts = {"chosen": "well", "rejected": "bad"}
    forms: list[dict[str, Any]] = [
        sides,
        {"prompt": CHAT, **alone},
        {"prompt": CHAT, **texts},
        {"prompt": CHAT, **sides},
    ]
    for number, form in enumerate([*forms, {"prompt": "how are you?", **sides}]):
        (pair,) = Preferences(jsonl(tmp_path / f"{number}.jsonl", form)).training_items()
        assert (list(pair.prompt.messages), pair.chosen, pair.rejected) == (CHAT, "well", "bad"), form
    (plain,) = Preferences(jsonl(tmp_path / "p.jsonl", {"prompt": "q", **alone})).training_items()
    assert plain.prompt == Prompt("q") and plain.chosen == "well"
    same = jsonl(tmp_path / "s.jsonl", {"chosen": sides["chosen"], "rejected": sides["chosen"]})
    assert Preferences(same).training_items()[0].rejected == "well"
    swapped = jsonl(tmp_path / "w.jsonl", {**sides, "label": 0})
    assert Preferences(swapped).training_items()[0].chosen == "bad"


def test_shared_turns_are_those_of_trl(tmp_path: Path) -> None:
    from trl.data_utils import extract_prompt

    chat: dict[str, Any] = {"chosen": [*CHAT, assistant("well")], "rejected": [*CHAT, assistant("bad")]}
    (pair,) = Preferences(jsonl(tmp_path / "c.jsonl", chat)).training_items()
    peer = extract_prompt(chat)
    assert list(pair.prompt.messages) == peer["prompt"] and [assistant(pair.chosen)] == peer["chosen"]
    texts: dict[str, Any] = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    (pair,) = Preferences(jsonl(tmp_path / "t.jsonl", texts)).training_items()
    assert {"prompt": pair.prompt.text, "chosen": pair.chosen, "rejected": pair.rejected} == extract_prompt(texts)
    assert pair.prompt.text == "The sky is" and pair.chosen == " blue."


def test_tools_are_read_as_lists_or_as_json(tmp_path: Path) -> None:
    call = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": WHERE}}],
    }
    asks = [user("rain?"), call, {"role": "tool", "name": "weather", "content": "none"}]
    for number, tools in enumerate(([WEATHER], json.dumps([WEATHER]))):
        file = jsonl(tmp_path / f"{number}.jsonl", {"prompt": asks, "tools": tools})
        (prompt,) = Prompts(file).training_items()
        assert prompt.tools == (WEATHER,) and prompt.text == "rain?" and prompt.meta == {}
        assert prompt.shown.split("\n")[1] == 'assistant: [calls {"name": "weather", "arguments": {"in": "Oslo"}}]'
    arrow = parquet(tmp_path / "p.parquet", {"prompt": asks, "tools": json.dumps([WEATHER])})
    (prompt,) = Prompts(arrow).training_items()
    assert prompt.messages[0] == user("rain?") and prompt.messages[1]["tool_calls"][0]["function"]["name"] == "weather"
    assert "tool_calls" not in prompt.messages[0] and "content" not in str(prompt.messages[0].get("tool_calls"))
    (single,) = Prompts(jsonl(tmp_path / "s.jsonl", {"prompt": [user("q")], "tools": [WEATHER]})).training_items()
    assert list(single.messages) == [user("q")] and single.tools == (WEATHER,)  # no plain prompt


def test_sharegpt_names(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (example,) = Conversations(jsonl(tmp_path / "a.jsonl", {"conversations": turns})).training_items()
    assert list(example.prompt.messages) == [system("s"), user("q")] and example.output == "a"


def test_pictures_stand_where_the_conversation_has_places(tmp_path: Path) -> None:
    for name, value in (("a", 0.2), ("b", 0.4), ("c", 0.6)):
        grey(tmp_path / f"{name}.png", value)
    place, word = {"type": "image"}, {"type": "text", "text": "compare"}
    asks = [user([word, place]), assistant("go on"), user([place, {"type": "text", "text": "and this"}])]
    (prompt,) = Prompts(jsonl(tmp_path / "p.jsonl", {"prompt": asks, "images": ["a.png", "b.png"]})).training_items()
    assert list(prompt.messages) == asks and prompt.text == "and this" and prompt.meta == {}
    assert {name: round(picture.mean().item(), 2) for name, picture in prompt.media.items()} == {
        "image": 0.2,
        "image_2": 0.4,
    }
    inside = [user([{"type": "image", "image": "c.png"}, word, place])]
    (prompt,) = Prompts(jsonl(tmp_path / "i.jsonl", {"prompt": inside, "image": "a.png"})).training_items()
    assert [round(prompt.media[name].mean().item(), 2) for name in prompt.media] == [0.6, 0.2]
    assert prompt.messages[0]["content"] == [place, word, place]


def test_pictures_without_places_stand_before_the_first_words(tmp_path: Path) -> None:
    grey(tmp_path / "a.png", 0.2), grey(tmp_path / "b.png", 0.4)
    row = {"prompt": [system("s"), user("q")], "images": ["a.png", "b.png"]}
    (prompt,) = Prompts(jsonl(tmp_path / "p.jsonl", row)).training_items()
    places = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "q"}]
    assert prompt.messages[1] == user(places) and list(prompt.media) == ["image", "image_2"]
    (plain,) = Prompts(jsonl(tmp_path / "q.jsonl", {**row, "prompt": [user("q")]})).training_items()
    (text,) = Prompts(jsonl(tmp_path / "t.jsonl", {**row, "prompt": "q"}), image="images").training_items()
    assert plain.messages == text.messages == () and list(plain.media) == list(text.media) == ["image", "image_2"]


def test_pictures_as_bytes_and_addresses(tmp_path: Path) -> None:
    grey(tmp_path / "a.png", 0.2)
    raw = (tmp_path / "a.png").read_bytes()
    cells = [{"bytes": raw, "path": None}, {"bytes": raw, "path": "x.png"}]
    file = parquet(tmp_path / "p.parquet", {"prompt": [user("q")], "images": cells})
    rows = Prompts(file).training_items()
    (prompt,) = rows
    assert [picture.shape for picture in prompt.media.values()] == [(3, 4, 4)] * 2
    assert rows.table.rows.several == {"images"}  # type: ignore[attr-defined]  # their bytes stay where they are
    url = "data:image/png;base64," + base64.b64encode(raw).decode()
    asks = [user([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "q"}])]
    (prompt,) = Prompts(jsonl(tmp_path / "u.jsonl", {"prompt": asks})).training_items()
    torch.testing.assert_close(prompt.media["image"], torch.full((3, 4, 4), 0.2))


def test_pictures_that_no_option_names_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey(tmp_path / "a.png", 0.2)
    file = jsonl(tmp_path / "p.jsonl", {"prompt": "q", "image": "a.png", "audio": "words"})
    (prompt,) = Prompts(file).training_items()
    assert prompt.meta == {"image": "a.png", "audio": "words"} and not prompt.media
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: the pictures in 'image' are no part of the prompts; set data.image: image to show them to the model."
    ]
    caplog.clear()
    assert Prompts(file, image="image").training_items()[0].media and not caplog.records


def test_columns_are_named_in_the_run_file(tmp_path: Path) -> None:
    row = {"instruction": "q", "response_a": "x", "response_b": "y", "who": {"name": ["n", "m"]}, "c1": "a", "c2": ""}
    file = jsonl(tmp_path / "a.jsonl", row)
    columns = {"prompt": "instruction", "chosen": "response_a", "rejected": "response_b"}
    more: dict[str, Any] = {"answer": "who.name[-1]", "all": ["c1", "c2"], "again": "instruction"}
    (pair,) = Preferences(file, columns={**columns, **more}).training_items()
    assert (pair.prompt.text, pair.chosen, pair.rejected) == ("q", "x", "y")
    assert pair.prompt.meta == {"who": row["who"], "c1": "a", "c2": "", "answer": "m", "all": ["a"], "again": "q"}
    arrow = parquet(tmp_path / "a.parquet", row)
    assert Preferences(arrow, columns={**columns, **more}).training_items()[0] == pair
    with pytest.raises(DataError) as caught:
        Prompts(file, columns={"prompt": "instructon", "who": "c1"}).training_items()
    first, second = str(caught.value).split("\n")
    assert "data.columns.prompt: no column 'instructon'. Did you mean 'instruction'?" in first
    assert "data.columns.who: the file has a column 'who' of its own; give that one another name" in second
    with pytest.raises(ConfigError, match=r"columns\.prompt: is \[\]"):
        Prompts(file, columns={"prompt": []})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": [{"role": "bot", "content": "x"}]}, "message 1 has the role 'bot'."),
    ({"prompt": [{"role": "usr", "content": "x"}]}, "Did you mean 'user'?"),
    ({"prompt": [user("a"), assistant(" "), user("b")]}, "message 2 (assistant) is empty"),
    ({"prompt": [user("a"), assistant("b")]}, "ends with the turn of assistant; the model answers a user's"),
    ({"prompt": [system("a")]}, "ends with the turn of system"),
    ({"prompt": "a text"}, "is a text, and a conversation in the first row"),
    ({"prompt": [user([{"type": "video", "video": "a.mp4"}])]}, "holds a video, which nothing here reads"),
    (
        {"prompt": [user([{"type": "image"}, {"type": "text", "text": "q"}])]},
        "places for 1 pictures, and its columns 0",
    ),
    ({"prompt": [user([{"type": "image", "url": "https://x.y/z.png"}])]}, "nothing is fetched"),
    ({"prompt": [user([{"type": "smell"}])]}, "parts are text, image and audio"),
    ({"prompt": [user("a")], "tools": "{not json"}, "'tools' is no JSON"),
    ({"prompt": [user("a")], "tools": ["f"]}, "expected a list of objects that describe functions"),
    ({"prompt": [user({"a": 1})]}, "expected a text or a list of parts"),
    ({"prompt": None}, "'prompt' is empty (None)"),
]


def test_rows_that_are_no_conversations_are_told_at_once(tmp_path: Path) -> None:
    rows = [{"prompt": CHAT, "tools": None}, *(row for row, _ in BAD)]
    file = jsonl(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError) as caught:
        Prompts(file).training_items()
    sentences = str(caught.value).split("\n")
    assert len(sentences) == len(BAD)
    for line, (sentence, (_, part)) in enumerate(zip(sentences, BAD, strict=True), 2):
        assert sentence.startswith(f"{file}:{line}: ") and part in sentence, sentence


def test_pictures_that_do_not_fit_their_places(tmp_path: Path) -> None:
    place, word = {"type": "image"}, {"type": "text", "text": "q"}
    rows = [{"prompt": [user([place, word])], "images": images} for images in (["a.png"], ["a.png", "b.png"], [])]
    with pytest.raises(DataError) as caught:
        Prompts(jsonl(tmp_path / "a.jsonl", *rows)).training_items()
    assert [sentence.partition(": ")[2] for sentence in str(caught.value).split("\n")] == [
        "the conversation has places for 1 pictures, and column 'images' 2; give one for each place.",
        "the conversation has places for 1 pictures, and column 'images' 0; give one for each place.",
    ]
    with pytest.raises(DataError, match=r"has a column 'chat_template_kwargs'.* set adapter\.chat_options"):
        Prompts(jsonl(tmp_path / "k.jsonl", {"prompt": [user("q")], "chat_template_kwargs": {}})).training_items()
    with pytest.raises(DataError, match=r"has a column 'videos', and nothing here reads videos"):
        Prompts(jsonl(tmp_path / "v.jsonl", {"prompt": [user("q")], "videos": ["a.mp4"]})).training_items()


def test_comparisons_of_different_prompts(tmp_path: Path) -> None:
    well = {"chosen": [user("a"), assistant("x")], "rejected": [user("a"), assistant("y")]}
    bad: list[dict[str, Any]] = [
        {**well, "rejected": [user("b"), assistant("y")]},
        {**well, "rejected": [user("a"), assistant("y"), user("c"), assistant("z")]},
        {**well, "rejected": [user("a")]},
        {**well, "prompt": "other"},
        {**well, "prompt": [user("other")]},
        {**well, "chosen": "a text"},
    ]
    pairs = Preferences(jsonl(tmp_path / "a.jsonl", well, *bad)).training_items()
    parts = [
        "'chosen' and 'rejected' answer different prompts: turn 1 is 'a' and 'b'.",
        "'chosen' and 'rejected' answer different prompts: turn 2 is 'its end' and 'y'.",
        "'rejected' ends with the user's turn; the last one is the answer",
        "'prompt' is 'other', which is no turn of 'chosen'.",
        "'prompt' is a conversation, and",
        "'chosen' is a text, and a conversation in the first row",
    ]
    faults = pairs.faults()
    assert len(faults) == len(parts)
    for line, (fault, part) in enumerate(zip(faults, parts, strict=True), 2):
        assert f"a.jsonl:{line}: {part}" in fault, fault
    left = Preferences(str(tmp_path / "a.jsonl"), skip_bad=True).training_items()
    assert len(left) == 1 and left[0].chosen == "x"
