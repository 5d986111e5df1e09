"""What pydantic finds wrong with a component's options, as "place: what, and what to do"."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmalign.core.errors import ConfigError, did_you_mean, shown

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_WORDS = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "dataclass_type": "must be a mapping of options",
    "dataclass_exact_type": "must be a mapping of options",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "path_type": "must be a path",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
}


def explained(
    faults: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    at: str,
    component: type[Any],
    given: Collection[str] = (),
) -> list[str]:
    """Pydantic's faults of `options` as sentences, one for each place; options in `given` are not the run file's."""
    sentences: dict[str, list[str]] = {}
    inputs: dict[str, str] = {}
    for fault in faults:
        location = _written(fault, options)
        place = ".".join([at, *(str(key)[:80] for key in location)] if at else [str(key)[:80] for key in location])
        if fault["type"] in _UNKNOWN:
            sentences[place] = [unknown(location, component, given)]
        elif fault["type"] in ("missing", "missing_argument"):
            sentences[place] = ["missing."]
        elif not location or isinstance(fault.get("ctx", {}).get("error"), Exception):
            for text in _raised(fault, component):
                sentences.setdefault(f"{place}.{text[0]}" if text[0] else place, []).append(text[1])
        else:
            sentences.setdefault(place, []).append(_words(fault))
            inputs[place] = _got(fault)
    return [
        text if place and text.startswith(f"{place}.") else f"{place}: {text}"  # a part of a part says its own place
        for place, texts in sentences.items()
        for text in ([" or ".join(dict.fromkeys(texts)) + inputs[place]] if place in inputs else texts)
    ]


def _written(fault: Mapping[str, Any], options: Mapping[str, Any]) -> list[Any]:
    """Where a fault is, without the names of types that pydantic puts into it where several would do."""
    *above, last = fault["loc"] or [None]
    node: Any = options
    keys = []
    for key in above:
        if (isinstance(node, Mapping) and key in node) or (isinstance(node, list) and isinstance(key, int)):
            keys.append(key)
            node = node[key]
    absent = fault["type"] in (*_UNKNOWN, "missing", "missing_argument")
    inside = (isinstance(node, Mapping) and last in node) or (isinstance(node, list | tuple) and isinstance(last, int))
    return [*keys, last] if last is not None and (absent or inside) else keys


def unknown(location: Sequence[Any], component: type[Any], given: Collection[str]) -> str:
    """Return what to say of an option that the dataclass has not: what it is called here, or all that there are."""
    owner, key = owner_at(component, location[:-1]), str(location[-1])
    if local_name := getattr(owner, "also_called", {}).get(key):
        return f"unknown option; here it is {local_name}."
    known = [name for name in option_names(owner) if name not in given]
    return f"unknown option.{did_you_mean(key, known)} Known: {', '.join(known) or 'none'}."


def _raised(fault: Mapping[str, Any], component: type[Any]) -> list[tuple[str, str]]:
    """(option, sentence) of what a component said itself while it was made; the option is "" where it names none."""
    error = fault.get("ctx", {}).get("error")
    texts = (
        error.faults if isinstance(error, ConfigError) else [str(error or fault["msg"]).removeprefix("Value error, ")]
    )
    own = option_names(owner_at(component, fault["loc"]))
    return [
        (text.partition(": ")[0], text.partition(": ")[2]) if text.partition(": ")[0] in own else ("", text)
        for text in texts
    ]


def _words(fault: Mapping[str, Any]) -> str:
    words = _WORDS.get(fault["type"])
    if words is None:
        return str(fault["msg"])
    return words.format(**fault.get("ctx", {}))


def _got(fault: Mapping[str, Any]) -> str:
    """What was found instead; nothing at all is a fault that needs its way out."""
    if fault["input"] is not None:
        return f" (got {shown(fault['input'])}){_nearest(fault)}"
    empty = "write '' for an empty text, or " if fault["type"] == "string_type" else ""
    return f" (got null, which is what nothing after the key means; {empty}leave the option out for its default)"


def _nearest(fault: Mapping[str, Any]) -> str:
    """Suggest which of the words that an option may be was meant; "" if none is near."""
    if fault["type"] != "literal_error":
        return ""
    known = [word for word in str(fault["ctx"]["expected"]).split("'") if word.strip(", ") not in ("", "or")]
    near = did_you_mean(str(fault["input"])[:80], known)
    return f".{near}" if near else ""


def owner_at(component: type[Any], location: Sequence[Any]) -> type[Any]:
    """Return the dataclass that `location` leads to from `component`."""
    owner = component
    for key in location:
        hint = typing.get_type_hints(owner).get(str(key)) if dataclasses.is_dataclass(owner) else None
        nested = [t for t in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(t)]
        if nested:
            owner = nested[0]  # type: ignore[assignment]
    return owner


def option_names(component: type[Any]) -> list[str]:
    """Return the options of a dataclass that a run file may set."""
    return [f.name for f in dataclasses.fields(component) if f.init] if dataclasses.is_dataclass(component) else []
