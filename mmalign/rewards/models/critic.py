"""A language model that writes what is good and bad about an output, before anything scores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmalign.core.errors import ConfigError
from mmalign.core.rng import stream_seed
from mmalign.core.types import Prompt
from mmalign.rewards.models.reader import Make, Reader, ReaderSpec
from mmalign.rewards.models.template import Template, check_template

__all__ = ["INSTRUCTION", "TEMPLATE", "Critic", "check_criticised", "criticised"]

INSTRUCTION = "Request:\n{prompt}\n\nAnswer:\n{output}\n\nSay what is right and what is wrong about the answer."
TEMPLATE = "{output}\n\nCritique: {critique}"


def check_criticised(template: str) -> Template:
    """The template of an output with its critique. ConfigError unless it names both."""
    read = check_template(template, "template", ["critique"])
    if "output" not in read.names:
        raise ConfigError("template: leaves the output itself out; name {output} in it.")
    return read


def criticised(template: Template, prompt: Prompt, output: str, critique: str) -> str:
    """An output with the critique that a reward model reads behind it."""
    return template.filled(Prompt(prompt.text, meta={**prompt.meta, "critique": critique.strip()}), output)


class Critic:
    """Writes a critique of each output; equal rows have equal ones, whatever stands beside them.

    Raises:
        ConfigError: an instruction without {output}, no generator, or one that writes no texts.
    """

    def __init__(self, make: Make | None, generator: ReaderSpec, instruction: str, seed: int, at: str) -> None:
        self.reader = Reader(make, generator, at)
        if self.reader.policy.modality != "text":
            raise ConfigError(f"{at}: makes {self.reader.policy.modality}; a critique is a text.")
        self.instruction, self.seed = check_template(instruction, "instruction", ["output"]), seed

    def question_about(self, prompt: Prompt, output: str) -> Prompt:
        """What the generator is asked about one output; it sees what the prompt shows."""
        return Prompt(self.instruction.filled(prompt, output), prompt.media)

    def critiques(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> list[str]:
        """One critique of each of B outputs."""
        questions = [self.question_about(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]
        seeds = torch.tensor([stream_seed(self.seed, "critique", prompt.question) for prompt in questions])
        policy: Any = self.reader.loaded
        with torch.no_grad():
            made: list[str] = policy.sample(questions, torch.Generator(), seeds=seeds).output
        return made
