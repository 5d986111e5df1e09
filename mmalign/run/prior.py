"""Prior preservation: what the model that a run starts from makes of its class, once, in the run directory.

    runs/mine/prior/metadata.jsonl  000000.png …   (or 000000.wav …)

The folder is whole or absent, is read by a run that goes on, and is one that data source `captioned` reads as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import write_folder_beside
from mmalign.core.objective import ObjectiveTraits, Prior
from mmalign.core.pace import Pace
from mmalign.core.protocols import Policy, PolicyTraits
from mmalign.core.rng import stream
from mmalign.core.types import Audio, Example, Prompt
from mmalign.data.lazy_rows import IndexedRows
from mmalign.media.audio import read_audio, write_audio
from mmalign.media.image import read_image, write_image
from mmalign.policies._base import micro_batches
from mmalign.run.build import Parts
from mmalign.run.hooks import say
from mmalign.training.session import Session

__all__ = ["PriorRows", "preserve_prior"]

LIST = "metadata.jsonl"


@dataclass(frozen=True)
class PriorRows(IndexedRows[Example]):
    """The outputs in `folder` with what was asked for each; one is decoded when it is indexed."""

    folder: Path
    names: Sequence[str]
    texts: Sequence[str]

    @classmethod
    def read(cls, folder: Path) -> PriorRows:
        """What lies in `folder`; DataError where its list cannot be read."""
        try:
            lines = [json.loads(line) for line in (folder / LIST).read_text(encoding="utf-8").splitlines()]
            return cls(folder, [str(row["file_name"]) for row in lines], [str(row["text"]) for row in lines])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder / LIST}: cannot be read ({error}); remove {folder}, and it is made anew."
            ) from error

    def __len__(self) -> int:
        return len(self.names)

    def made(self, index: int) -> Example:
        """Decode output `index`."""
        path = self.folder / self.names[index]
        if path.suffix == ".png":
            return Example(Prompt(self.texts[index]), read_image(path))
        samples, rate = read_audio(path)
        return Example(Prompt(self.texts[index]), Audio(samples[None], rate))


def preserve_prior(parts: Parts, folder: Path, session: Session) -> None:
    """Give the objective what the start makes of its class, which the main process makes where it is not there yet.

    Raises:
        ConfigError: `folder` holds outputs for other prompts, or another number of them.
    """
    prior = ObjectiveTraits.of(parts.objective).prior
    if prior is None:
        return
    if session.is_main and not folder.exists():
        say(f"making {prior.count} outputs of the start for objective.prior_prompts …")
        _make(parts, prior, folder)
    session.meet()
    rows = PriorRows.read(folder)
    if list(rows.texts) != _texts_of(prior):
        raise ConfigError(
            f"{folder}: holds {len(rows)} outputs for other prompts than objective.prior_prompts and prior_count ask "
            "for now; go on with those of the run, or remove the folder, and they are made anew."
        )
    parts.objective.prior_rows = rows


def _texts_of(prior: Prior) -> list[str]:
    return [prior.prompts[i % len(prior.prompts)] for i in range(prior.count)]


def _make(parts: Parts, prior: Prior, folder: Path) -> None:
    """Write what the reference makes, every output from noise of its own; a killed run leaves nothing."""
    prompts, seed = [Prompt(text) for text in _texts_of(prior)], parts.file.trainer.seed
    policy: Any = parts.policy
    pace, rows = Pace("made"), list[str]()
    with write_folder_beside(folder) as beside, torch.no_grad(), policy.reference():
        for part in micro_batches(prior.count, parts.file.evaluation.rows):
            for output in _outputs(policy, prompts[part], seed, part.start):
                name = f"{len(rows):06d}{'.wav' if isinstance(output, Audio) else '.png'}"
                if isinstance(output, Audio):
                    end = None if output.mask is None else int(output.mask[0].sum())
                    write_audio(output.samples[0, :, :end], output.rate, beside / name)
                else:
                    write_image(output, beside / name)
                rows.append(json.dumps({"file_name": name, "text": prompts[len(rows)].text}))
            pace(len(rows), prior.count)
        (beside / LIST).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _outputs(policy: Policy, prompts: Sequence[Prompt], seed: int, start: int) -> list[Any]:
    """One output for each prompt, unbatched. Tokens that deployment would take greedily are drawn: all would be one."""
    if PolicyTraits.of(policy).eval_temperature == 0:
        made = policy.sample(prompts, stream(seed, "prior", start)).output
    else:
        made = policy.generate(prompts, [stream(seed, "prior", start + row) for row in range(len(prompts))]).output
    return [made[row : row + 1] if isinstance(made, Audio) else made[row] for row in range(len(prompts))]
