"""A frozen encoder with a trained head: features of pictures, sounds or texts, and a score of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int

from mmalign.adapters.bases.pretrained_adapter import default_device
from mmalign.adapters.weights.full import copy_into, read_tensors
from mmalign.adapters.weights.reference import StartedWeights
from mmalign.core.digests import value_digest
from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.core.options import AtLeastOne, Count, must, refuse
from mmalign.core.protocols import Encoder, Inputs
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Audio, Modality, OutputOfKind, Prompt, Rollout, single_outputs
from mmalign.loading.files import read_json
from mmalign.loading.trained import local_weights

__all__ = ["Embedder", "Gate"]

FACTS, WEIGHTS = "embedder.json", "embedder.safetensors"


@dataclass
class Gate:
    """What dimensions count where two kinds are compared: g = σ(W [e_a; e_b]), the kinds in the order of `kinds`.

    Hydra's gate, from its abstract (a reconstruction); at the start every dimension counts one half.

    Args:
        columns: the two columns of a row that name the kinds of its anchor and of its positive.
        kinds: their values.
        width: of a kind's embedding e.
    """

    columns: tuple[str, str] = ("kind", "other_kind")
    kinds: list[str] = field(default_factory=list)
    width: AtLeastOne = 16

    def __post_init__(self) -> None:
        twice = sorted({kind for kind in self.kinds if self.kinds.count(kind) > 1})
        refuse(
            must(len(self.kinds) > 1, "gate.kinds: name two kinds at least, the values of the columns."),
            must(not twice, f"gate.kinds: names {', '.join(twice)} twice."),
        )


@dataclass
class Embedder:
    """`FeatureAdapter` around an encoder: φ(e) by a linear layer or two, score θᵀφ(e) + b; prompts are not read.

    Reward from features that people's similarity queries shaped (SIRL, 2301.00810): first `objective: contrast` with
    `loss_type: triplet`, then from its run (`start`), with `train: score`, `objective: bradley_terry`.

    Args:
        encoder: {name: …, options…} of a frozen encoder; a plain string is a CLIP checkpoint.
        judges: the kind of outputs.
        width: D.
        hidden: of a layer with SiLU before; 0 is none, and φ is linear.
        train: "all", or the "score" alone, over features that stay; "frozen" for measuring.
        gate: opens dimensions by pairs of kinds, for `contrast` with `gated: true`.
        start: a run directory or folder to start from, which says width, hidden and gate.
        seed: draws the head.
        cached_outputs: outputs whose embeddings are kept, on the CPU; the oldest go all at once.
        device: where it computes.
    """

    encoder: dict[str, Any] | str
    judges: Modality = "image"
    width: AtLeastOne = 64
    hidden: Count = 0
    train: Literal["all", "score", "frozen"] = "all"
    gate: Gate | None = None
    start: str = ""
    seed: Count = 0
    cached_outputs: Count = 4096
    device: Device | str | None = None
    make: Callable[..., Any] | None = field(default=None, repr=False)

    embedder: Encoder = field(init=False, repr=False, compare=False)
    network: Module = field(init=False, repr=False, compare=False)
    module: Module = field(init=False, repr=False, compare=False)
    weights: StartedWeights = field(init=False, repr=False, compare=False)
    _kept: dict[bytes, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.make is None:
            raise ConfigError("adapter 'embedder' is built of an encoder; use a run file, or mmalign.load_adapter.")
        section = {"name": "clip", "checkpoint": self.encoder} if isinstance(self.encoder, str) else self.encoder
        self.embedder = self.make("rewards.encoders", section, "encoder")
        self.make = None
        if self.judges not in self.embedder.modalities:
            kinds = " and ".join(sorted(self.embedder.modalities))
            raise ConfigError(f"judges: {self.judges}, but this encoder embeds {kinds}.")
        if self.start:
            facts = read_json(self._begun() / FACTS, "name a run of adapter embedder")
            self.width, self.hidden = int(facts["width"]), int(facts["hidden"])
            gate = facts["gate"]
            self.gate = None if gate is None else Gate(**{**gate, "columns": tuple(gate["columns"])})

    @property
    def modality(self) -> Modality:
        """The modality of the outputs it judges."""
        return self.judges

    def load(self, device: Device | str | None = None) -> Self:
        """Embed a blank output, which tells the encoder's width, and make the head."""
        self.device = default_device(self.device if self.device is not None else device)
        blank: dict[str, OutputOfKind] = {"text": ["a"], "image": torch.zeros(1, 3, 64, 64)}
        sound = Audio(torch.zeros(1, 1, 48_000), 48_000)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            size = self.embedder.embed(Rollout.of([""], blank.get(self.judges, sound))).shape[1]
            torch.manual_seed(self.seed)
            from mmalign.adapters.features._head import Head

            gated = None if self.gate is None else (len(self.gate.kinds), self.gate.width)
            self.network = Head(size, self.width, self.hidden, gated)
        self.network.requires_grad_(self.train == "all").score.requires_grad_(self.train != "frozen")
        if self.start:
            copy_into(self.network, read_tensors(self._begun()), self._begun())
        self.module = self.network.to(self.device)
        self.weights = StartedWeights(self.network)
        return self

    def wrap(self, prepare: Callable[[Module], Module]) -> None:
        """Put what a launcher makes of the head in its place."""
        self.module = prepare(self.module)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the head has the weights it started from."""
        return self.weights.reference()

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Return the head's weights that train, by name."""
        return self.weights.trainable()

    def read(self, prompts: Sequence[Prompt], outputs: OutputOfKind) -> list[Inputs]:
        """The encoder's embedding of each output. Raises DataError where it cannot embed one."""
        keys = [value_digest(output) for output in single_outputs(outputs)]
        new = [at for at, key in enumerate(keys) if key not in self._kept]
        embedded_by_key = {key: self._kept[key] for key in keys if key in self._kept}
        if new:
            rollout = Rollout.of(list(prompts), outputs)[torch.tensor(new)]
            with torch.no_grad():
                embedded = self.embedder.embed(rollout).float().cpu()
            embedded_by_key |= {keys[at]: row for at, row in zip(new, embedded, strict=True)}
        if bad := [prompts[at].place for at, key in enumerate(keys) if not bool(embedded_by_key[key].isfinite().all())]:
            raise DataError(f"{bad[0] or 'an output'}: the encoder cannot embed it; leave the row out.")
        if len(self._kept) + len(new) > self.cached_outputs:
            self._kept.clear()
        self._kept |= embedded_by_key if len(embedded_by_key) <= self.cached_outputs else {}
        return [{"embedding": embedded_by_key[key]} for key in keys]

    def score(self, inputs: Sequence[Inputs]) -> Float[Tensor, " B"]:
        """B scores, with gradient."""
        return self.scored_features(inputs)[0]

    def scored_features(self, inputs: Sequence[Inputs]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """B scores and the features that they are of, with gradient."""
        embedding = torch.stack([row["embedding"] for row in inputs]).to(self.device)
        scores, features = self.module(embedding)
        return scores, features

    def gates(self, prompts: Sequence[Prompt]) -> Float[Tensor, "B D"]:
        """The gates of the pair of kinds that each prompt names. Raises DataError for a kind that is not known."""
        if self.gate is None:
            raise ConfigError("adapter.gate: is missing; name the columns and the kinds of pairs.")
        rows = [[self._kind(self.gate, prompt, column) for column in self.gate.columns] for prompt in prompts]
        pairs: Int[Tensor, "B 2"] = torch.tensor(rows, device=self.device).sort(1).values
        gates: Tensor = self.module(None, pairs)[0]
        return gates

    @staticmethod
    def _kind(gate: Gate, prompt: Prompt, column: str) -> int:
        value = prompt.meta.get(column)
        if value not in gate.kinds:
            raise DataError(
                f"{prompt.place or 'a row'}: '{column}' is {value!r}; gate.kinds has {', '.join(gate.kinds)}."
            )
        return gate.kinds.index(value)

    def save(self, directory: Path) -> None:
        """Write the head's weights, and what `start` has to know of it."""
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        save_file(tensors, directory / WEIGHTS)
        facts = {"width": self.width, "hidden": self.hidden, "gate": None if self.gate is None else asdict(self.gate)}
        (directory / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        copy_into(self.network, read_tensors(directory), directory)

    def _begun(self) -> Path:
        folder = local_weights(self.start)
        if folder is None or not (folder / FACTS).is_file():
            raise CheckpointError(f"start: {self.start} is no run of adapter embedder, and no folder that one saved.")
        return folder
