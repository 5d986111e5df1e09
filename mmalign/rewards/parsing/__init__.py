"""Reading answers out of generated text, in linear time and without trust.

    text        normalized, words, bounded           the text itself
    answers     answer_of, solution_of               where the answer stands: <answer>, \\boxed{}, after the thinking
    markup      unwrapped                            what is set around an answer: **, $ $, quotation marks
    tags        framed, inner                        XML-like tags
    numbers     quantity, last_quantity              as people write them; what is not understood is refused
    choices     choice
    json_values json_values
    boxes       boxes_in                             five ways models write boxes
    calls       tool_calls                           JSON objects in <tool_call> blocks
    sql         query, is_ordered

A parser returns what it read or raises `Unreadable`, which a reward turns into PARSE_FAIL. Nothing else may come out of
one, whatever the text: no other exception, no time that grows faster than the text, no guess.
"""

from mmalign.rewards.parsing.answers import Where, answer_of, behind_thinking, solution_of
from mmalign.rewards.parsing.boxes import FoundBox, Writing, boxes_in
from mmalign.rewards.parsing.calls import tool_calls
from mmalign.rewards.parsing.choices import choice
from mmalign.rewards.parsing.json_values import json_values
from mmalign.rewards.parsing.markup import unwrapped
from mmalign.rewards.parsing.numbers import Quantity, last_number, last_quantity, number, quantity
from mmalign.rewards.parsing.sql import is_ordered, query
from mmalign.rewards.parsing.tags import framed, inner
from mmalign.rewards.parsing.text import ENDLESS, LONG, SHORT, Unreadable, bounded, normalized, words

__all__ = [
    "ENDLESS",
    "LONG",
    "SHORT",
    "FoundBox",
    "Quantity",
    "Unreadable",
    "Where",
    "Writing",
    "answer_of",
    "behind_thinking",
    "bounded",
    "boxes_in",
    "choice",
    "framed",
    "inner",
    "is_ordered",
    "json_values",
    "last_number",
    "last_quantity",
    "normalized",
    "number",
    "quantity",
    "query",
    "solution_of",
    "tool_calls",
    "unwrapped",
    "words",
]
