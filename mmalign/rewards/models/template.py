"""Texts with places for what a row says: "Does this picture show {prompt}?"."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Modality, Prompt

_PLACE = re.compile(r"\{(\w+)\}")
_OWN = ("prompt", "output")


@dataclass(frozen=True)
class Template:
    """{prompt}, {output}, and any other name in braces: a column of `Prompt.meta`. Other braces stand for themselves.

    What is filled in is never looked through for further places: a caption may hold braces.
    """

    text: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name in braces, once."""
        return tuple(dict.fromkeys(_PLACE.findall(self.text)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that are columns of `Prompt.meta`."""
        return tuple(name for name in self.names if name not in _OWN)

    def filled(self, prompt: Prompt, output: str | None = None) -> str:
        """The text for one row. ValueError where it names {output} and the output is no text."""
        values = {"prompt": prompt.text, "output": output, **{name: prompt.meta.get(name) for name in self.columns}}
        if output is None and "output" in self.names:
            raise ValueError("the question names {output}, which is no text here; it is shown to the judge instead")
        return _PLACE.sub(lambda match: str(values[match[1]]), self.text)


def require_output_named(text: str, option: str, made: Modality) -> None:
    """Raise CapabilityError unless a judge's template, if there is one, names {output} of texts, and of texts alone."""
    if not text or (made == "text") == ("output" in Template(text).names):
        return
    fault = "shows the judge none of the text it is about" if made == "text" else "names {output}, which is shown"
    raise CapabilityError(f"{option}: {fault}; {'name {output} in it' if made == 'text' else 'leave it out'}.")


def check_template(text: str, option: str, wanted: Collection[str]) -> Template:
    """The template. ConfigError unless it names one of `wanted`."""
    template = Template(text)
    if not set(template.names) & set(wanted):
        names = " or ".join(f"{{{name}}}" for name in wanted)
        raise ConfigError(f"{option}: {text!r} asks the same of every row; name {names} in it.")
    return template
