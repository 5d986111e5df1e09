"""Sequence classifiers with one label: what published reward models are, and what any language model becomes as one.

Where transformers has a classifier class for the model, it is used, so that its plain Auto class loads what is saved.
For the others (most image-text-to-text models) the class is made the way transformers makes its own: the family's
backbone and a linear layer `score`, read at the last token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_safetensors, read_json
from mmalign.loading.foreign import ModelConfig, PretrainedModel
from mmalign.loading.networks import open_network, open_speaker
from mmalign.loading.texts import open_config

Kind = Literal["linear", "mlp2", "ideal_point"]


@dataclass
class HeadOptions:
    """`kind` of head; `seed` draws a fresh one.

    `width`: hidden features of mlp2, dimensions of the space of ideal points; 0 is the network's own width.
    `prototypes`: of ideal_point; `points`: they are `learned` as they are (PAL-A), or made of the `prompt` (PAL-B).
    `users`: whose ideal points are told apart, by name as the column `user_column` says; none is one point for all.
    """

    kind: Kind = "linear"
    width: int = 0
    prototypes: int = 2
    points: Literal["learned", "prompt"] = "learned"
    users: list[str] = field(default_factory=list)
    user_column: str = "user"
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.width < 0:
            faults.append(f"head.width: {self.width} must be at least 0.")
        if self.prototypes < 1:
            faults.append(f"head.prototypes: {self.prototypes} must be at least 1.")
        if self.points == "prompt" and self.kind != "ideal_point":
            faults.append(f"head.points: prompt is of ideal_point, not of a {self.kind} head.")
        if self.users and self.kind != "ideal_point":
            faults.append(f"head.users: a {self.kind} head does not tell users apart; set kind: ideal_point.")
        if twice := sorted({user for user in self.users if self.users.count(user) > 1}):
            faults.append(f"head.users: names {', '.join(twice)} twice.")
        if faults:
            raise ConfigError(faults)


_OF_USERS = ("mixture", "newcomers.weight")  # of ideal points, in what is saved
FACTS = "reward_model.json"  # beside the weights: what head it is


def open_classifier(
    folder: Path, head: HeadOptions, dtype: torch.dtype, attention: str | None = None, newcomers: int = 0
) -> tuple[Any, str]:
    """Open the model of `folder` as a classifier with `head`, frozen, on the CPU; also tell the place of its head.

    A head that the folder holds is read, whatever `head.seed` says; of another model a fresh one is made. The last
    `newcomers` of the head's users have weights of their own module.

    Raises:
        CheckpointError: nothing that can be made a classifier, one with several labels, or weights that are missing.
    """
    from mmalign.adapters.language._score_heads import fresh_head

    config = open_config(folder)
    saved = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    if saved and config.num_labels != 1:
        raise CheckpointError(f"{folder}: a classifier with {config.num_labels} labels; a reward model has one.")
    config.num_labels = 1
    with loading():  # what it makes of modules has storage only where nobody else builds
        with _drawing(head.seed):
            model = _opened(folder, config, dtype, attention, saved)
        model.requires_grad_(False).eval()
        place, last = _last_layer(model, folder)
        own = fresh_head(head, last.in_features, last.bias is not None)
    saved_head = _tensors(folder, place) if saved else {}
    if saved_head:
        _fill(own, saved_head, folder, newcomers)
    model.set_submodule(place, own.requires_grad_(False).eval())
    return model, place


def sees(config: ModelConfig) -> bool:
    """Does this kind of model read pictures?"""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as known

    return type(config) in known


def read_facts(folder: Path) -> dict[str, Any]:
    """Read what `write_facts` wrote into the folder; {} if it did not."""
    return read_json(folder / FACTS, "copy the folder again") if (folder / FACTS).exists() else {}


def write_facts(folder: Path, head: HeadOptions, **more: object) -> None:
    """Write the head's options, and `more`, beside the weights."""
    (folder / FACTS).write_text(json.dumps({"head": asdict(head), **more}, indent=1) + "\n", encoding="utf-8")


def classifier_class(config: ModelConfig) -> Any:
    """Return the class of a classifier for this config's models: transformers' own, or one made like it."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING
    from transformers.modeling_layers import GenericForSequenceClassification
    from transformers.modeling_utils import PreTrainedModel

    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    if type(config) not in MODEL_MAPPING:
        raise CheckpointError(f"{type(config).__name__} names no model of transformers that texts can be judged with.")
    backbone = MODEL_MAPPING[type(config)]
    family = next((base for base in backbone.__mro__ if PreTrainedModel in base.__bases__), None)
    if family is None:
        raise CheckpointError(f"{backbone.__name__} is not built like the other models of transformers.")
    name = f"{backbone.__name__.removesuffix('Model')}ForSequenceClassification"
    return type(name, (GenericForSequenceClassification, family), {"__module__": __name__})


def _opened(folder: Path, config: ModelConfig, dtype: torch.dtype, attention: str | None, saved: bool) -> Any:
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as known

    kind = classifier_class(config)
    if type(config) not in known and not saved:
        return _grafted(kind, folder, config, dtype, attention)
    more = {"attn_implementation": attention} if attention else {}
    # What is not the backbone is the head, which is made or read apart; no head here reads a pooler.
    beside = (rf"^(?!{kind.base_model_prefix}\.)", r"\.pooler\.")
    return open_network(folder, kind, dtype, spare=beside, heads=True, config=config, **more)


def _grafted(kind: type[Any], folder: Path, config: ModelConfig, dtype: torch.dtype, attention: str | None) -> Any:
    """A classifier of `kind` around the backbone of the language model in `folder`."""
    auto = "AutoModelForImageTextToText" if sees(config) else "AutoModelForCausalLM"
    speaker = open_speaker(folder, dtype, auto, attention)
    with torch.device("meta"):
        model = kind(config)
    setattr(model, model.base_model_prefix, speaker.base_model)
    config.architectures = [kind.__name__]
    model.score = torch.nn.Linear(model.score.in_features, 1, bias=False, dtype=dtype)
    return model


def _last_layer(model: PretrainedModel, folder: Path) -> tuple[str, torch.nn.Linear]:
    """The name of the classifier's last layer, and the layer."""
    inside = f"{model.base_model_prefix}."
    linear = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features == 1 and not name.startswith(inside)
    ]
    if not linear:
        raise CheckpointError(f"{folder}: {type(model).__name__} has no linear layer with one output to score with.")
    return linear[-1]


def _tensors(folder: Path, place: str) -> dict[str, Tensor]:
    """The saved tensors of the head, in the precision they were saved in."""
    from safetensors import safe_open

    head = {}
    for file in sorted(folder.glob("*.safetensors")):
        check_safetensors(file)
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (it is no mapping)
                if name.startswith(f"{place}."):
                    head[name.removeprefix(f"{place}.")] = tensors.get_tensor(name)
    return head


def _fill(head: torch.nn.Module, tensors: dict[str, Tensor], folder: Path, newcomers: int) -> None:
    from mmalign.adapters.language._score_heads import LinearHead, OfUsers

    if isinstance(head, OfUsers) and "mixture" in tensors:
        weights = [tensors.pop(name).float() for name in _OF_USERS if name in tensors]
        if sum(map(len, weights)) <= len(head.mixture) and weights[0].shape[1] == head.mixture.shape[1]:
            head.take_users(torch.cat(weights), newcomers)
            tensors |= {name: value.detach() for name, value in head.state_dict().items() if name in _OF_USERS}
        else:
            tensors["mixture"] = torch.cat(weights)
    try:
        head.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        kind = "linear" if isinstance(head, LinearHead) else type(head).__name__
        raise CheckpointError(
            f"{folder}: its head is not the {kind} one that {FACTS} or adapter.head names: {error}"
        ) from error


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """The fresh head, which is replaced anyway, is not drawn from the global stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
