"""Reward models: any text or image-text model of transformers with a head that scores a prompt's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float

from mmalign.adapters.bases.pretrained_adapter import mixed_precision, torch_dtype
from mmalign.adapters.bases.transformers_adapter import TransformersAdapter, checkpointed, with_towers
from mmalign.adapters.language._classifier import (
    HeadOptions,
    classifier_class,
    open_classifier,
    read_facts,
    sees,
    write_facts,
)
from mmalign.adapters.language._classifier_inputs import ClassifierInputs, MediaInputs, TextInputs
from mmalign.adapters.language._reader import PairReader, reading_folder
from mmalign.adapters.tokens.texts import Chat
from mmalign.adapters.weights.full import FullWeights
from mmalign.adapters.weights.peft import CONFIG_FILE, PeftWeights, base_of, language_layers, linear_endings, named_base
from mmalign.adapters.weights.reference import FrozenWeights, TrainedWeights
from mmalign.adapters.weights.start import starts_of
from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt
from mmalign.loading.exclusive import loading
from mmalign.loading.folders import network_folder, peft_folder
from mmalign.loading.foreign import ModelConfig, PretrainedModel, Processor, Tokenizer
from mmalign.loading.lora_files import PEFT_FILE, LoRAFile
from mmalign.loading.lora_forms import read_lora
from mmalign.loading.texts import open_config, open_processor, open_tokenizer
from mmalign.loading.trained import local_weights, named, way_to

RECALLED = ("head", "judges", "chat", "system", "chat_options")  # what a saved reward model knows of itself

WAY = "relative_base"  # of a saved LoRA: the way to its base


@dataclass
class RewardModel(TransformersAdapter):
    """`StateAdapter` around `AutoModelForSequenceClassification` with one label, or an image-text model made like one.

    What a run saves is a folder for plain transformers (peft, with a LoRA), its head included where it is linear, and
    with `reward_model.json` beside it, from which mmalign knows head, template and kind of output again.

    Args:
        model: a Hub id or folder: a language model (its head is drawn), a classifier with one label as published
            reward models are, what a reward-model run saved, its LoRA, or its run directory (the newest checkpoint).
        head: what makes the score.
        judges: "text", or "image": pictures then follow those of the prompt, which the model must be able to read.
        train: "lora" (with the head), "full", "head" alone, "user" (of an ideal_point head, users that the saved model
            does not know, named in `head.users` behind those it does), or "frozen" (inside a reward); trained weights
            are float32.
        lora: of a fresh LoRA, without dropout; on every linear layer of the backbone unless it names others.
        dtype: of frozen weights and of the network's arithmetic (autocast); heads compute in float32.
        chat: put prompt and output into the chat template, as it came: true, false, or "auto" (if there is one).
        system: a system message before every prompt.
        chat_options: further variables of the chat template.
        processor_options: of an image-text processor's call, e.g. `{images_kwargs: {size: {longest_edge: 512}}}`.
        cached_prompts: prompts with pictures whose ids and pixels are kept, on the CPU.
    """

    train: Literal["lora", "full", "head", "user", "frozen"] = "lora"  # type: ignore[assignment]  # one more than others
    head: HeadOptions = field(default_factory=HeadOptions)
    judges: Literal["text", "image"] = "text"
    chat: Chat = "auto"
    system: str = ""
    chat_options: dict[str, Any] = field(default_factory=dict)
    processor_options: dict[str, Any] = field(default_factory=dict)
    cached_prompts: AtLeastOne = 64

    newcomers: int = field(default=0, init=False, repr=False, compare=False)  # users that the saved model did not know
    inputs: ClassifierInputs = field(init=False, repr=False, compare=False)
    preprocessor: Tokenizer | Processor = field(
        init=False, repr=False, compare=False
    )  # what is saved beside a whole model

    def __post_init__(self) -> None:
        super().__post_init__()
        starts = [start.path for start in starts_of(self.start_lora)]
        for name in (self.model, *(starts if len(starts) == 1 else [])):
            if (folder := local_weights(name)) is not None:
                self._recall(read_facts(folder))
        if self.train == "user" and not self.newcomers:
            raise ConfigError(
                "train: user: there is no new user; name in head.users all users of a saved ideal_point model, in "
                "their order, and the new ones behind them."
            )

    @property
    def modality(self) -> Modality:
        """The modality of the outputs it judges."""
        return self.judges

    def load_parts(self, device: torch.device) -> None:
        """Open the model as a classifier, with what reads its prompts and outputs."""
        from mmalign.adapters.language._score_heads import ScoringNetwork

        folder, lora = self._folders()
        full = self.train == "full"
        dtype = torch.float32 if full else torch_dtype(self.dtype)
        model, place = open_classifier(folder, self.head, dtype, self.attention, self._apart)
        pictured = sees(model.config)
        if self.judges == "image" and not pictured:
            raise ConfigError(f"judges: image, but {type(model).__name__} reads no pictures; take a model that does.")
        self.preprocessor = open_processor(folder) if pictured else open_tokenizer(folder)
        self.inputs = (MediaInputs if pictured else TextInputs)(self, model, self.preprocessor)
        self.weights = self._trained(model, place, lora)
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.network = self.module = ScoringNetwork(self.placed(model, device), place).eval()

    def model_of(self, config: ModelConfig) -> PretrainedModel:
        """Make a classifier of a configuration, with one label."""
        config.num_labels = 1
        return classifier_class(config)(config)

    def reader(self, fetch: bool = True) -> PairReader | None:
        """What counts tokens of prompts with their outputs, without the model; None where outputs are pictures.

        Raises:
            CheckpointError: the tokenizer or the configuration is not to be had.
        """
        if self.judges == "image":
            return None
        own = local_weights(self.model)
        if own is not None and (own / CONFIG_FILE).exists():
            folder = reading_folder(_base_of(own), None, fetch)
        else:
            folder = reading_folder(str(own or self.model), self.revision, fetch)
        with loading(), torch.device("meta"):  # its class alone tells how it reads; no weight is made
            model = self.model_of(config := open_config(folder))
        if sees(config):
            pictured = MediaInputs(self, model, processor := open_processor(folder))
            return PairReader(processor.tokenizer, pictured.words, pictured.context)
        written = TextInputs(self, model, tokenizer := open_tokenizer(folder))
        return PairReader(
            tokenizer, lambda prompt, output: len(written.whole_row(prompt, output)["input_ids"]), written.context
        )

    def read(self, prompts: Sequence[Prompt], outputs: Tensor | list[str]) -> list[Inputs]:
        """Token ids, pixels, where outputs begin and whose judgement is asked for, of B prompts with outputs."""
        pairs = zip(prompts, outputs, strict=True)
        own = [{"user": self._user(prompt), **self.inputs.begins(prompt)} for prompt in prompts]
        rows = [self.inputs.row(*pair) for pair in pairs]
        return [{**row, **more} for row, more in zip(rows, own, strict=True)]

    def score(self, inputs: Sequence[Inputs]) -> Float[Tensor, " B"]:
        """B scores, with gradient."""
        user, batch = self._batch(inputs)
        with checkpointed(self.network), mixed_precision(user.device, self.dtype):
            scores = self.module(user, batch)
        return self._waited_for(scores)

    def scored_features(self, inputs: Sequence[Inputs]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """B scores, and what the head reads of each row, float32; with gradient."""
        user, batch = self._batch(inputs)
        with checkpointed(self.network), mixed_precision(user.device, self.dtype):
            scores, features = self.module(user, batch, "features")
        return scores, self._waited_for(features)

    def scored_states(
        self, inputs: Sequence[Inputs]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """B scores, what the head would read at each of L tokens, and which of these are the output's.

        Of models that see, the tokens of prompt and output count alike.

        Raises:
            CapabilityError: an encoder, which reads ahead.
        """
        user, batch = self._batch(inputs)
        with checkpointed(self.network), mixed_precision(user.device, self.dtype):
            scores, states = self.module(user, batch, "states")
        live = batch["attention_mask"].bool()
        begins = torch.tensor([int(row.get("begins", 0)) for row in inputs], device=user.device)
        return scores, self._waited_for(states), live & (live.cumsum(1) > begins[:, None])

    def _batch(self, inputs: Sequence[Inputs]) -> tuple[Tensor, Mapping[str, Tensor]]:
        user = torch.stack([row["user"] for row in inputs]).to(self.device)
        rows = [{k: v for k, v in row.items() if k not in ("user", "begins")} for row in inputs]
        batch = self.inputs.batch(rows, user.device)
        if self.head.points == "prompt" and all("begins" in row for row in inputs):
            batch = {**batch, "begins": torch.tensor([int(row["begins"]) for row in inputs], device=user.device)}
        return user, batch

    def _waited_for(self, value: Tensor) -> Tensor:
        waits = self.is_wrapped and isinstance(self.inputs, MediaInputs)
        return with_towers(value, self.network.model) if waits else value

    def save(self, directory: Path) -> None:
        """Write what `model` takes, see there."""
        super().save(directory)
        if not isinstance(self.weights, PeftWeights):
            self.write_beside(directory)
            return
        write_facts(directory, **{**self._known(), WAY: way_to(named_base(directory), directory)})

    def write_beside(self, directory: Path) -> None:
        """Write the tokenizer or processor, and what mmalign knows of the model."""
        write_facts(directory, **self._known())
        self.preprocessor.save_pretrained(directory)

    @property
    def _apart(self) -> int:
        """How many users have weights that are trained apart from all others."""
        return self.newcomers if self.train == "user" else 0

    def _known(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in RECALLED}

    def _folders(self) -> tuple[Path, Path | None]:
        """Of the model, and of the LoRA on it if `model` names one."""
        folder = local_weights(self.model)
        if folder is None:
            return network_folder(self.model, self.revision), None
        if (folder / CONFIG_FILE).exists() and self.start_lora:
            raise ConfigError(
                f"start_lora: model names a LoRA already, {folder}; name its base as model, and both as start_lora."
            )
        if not (folder / CONFIG_FILE).exists():
            return network_folder(str(folder)), None
        if self.train in ("full", "user"):
            raise ConfigError(
                f"model: {folder} is a LoRA, which train: {self.train} would not keep; set train: lora or head."
            )
        return network_folder(_base_of(folder)), peft_folder(str(folder))

    def _trained(self, model: PretrainedModel, place: str, lora: Path | None) -> TrainedWeights:
        if lora is not None:
            self.start = read_lora(LoRAFile(lora / PEFT_FILE, lora / CONFIG_FILE), self.lora_place())
        if self.start is None and self.train not in ("lora", "frozen"):
            trained = {"full": "", "user": f"{place}.newcomers"}.get(self.train, place)
            return FullWeights(model, read=partial(self._weights_of, place), only=trained)
        if self.train == "full":
            self.lay_start(model)
            return FullWeights(model, read=partial(self._weights_of, place))
        if self.start is None and self.train == "frozen":
            return FrozenWeights()
        base = named(self.model) if lora is None else _base_of(lora)
        targets = language_layers(model) if sees(model.config) else linear_endings(model.base_model)
        weights = PeftWeights(
            model, self.lora, targets, **self.beginning(model), base=base, task="SEQ_CLS", whole=[place]
        )
        for name, parameter in weights.trainable().items():
            parameter.requires_grad_(self.train == "lora" or (self.train == "head" and name.startswith(f"{place}.")))
        return FrozenWeights() if self.train == "frozen" else weights

    def _weights_of(self, place: str, folder: Path) -> dict[str, Tensor]:
        model, own_place = open_classifier(folder, self.head, torch.float32, self.attention, self._apart)
        if own_place != place:
            raise CheckpointError(f"{folder}: its head is called {own_place}, this model's is {place}.")
        return {name: p.detach() for name, p in model.named_parameters()}

    def _user(self, prompt: Prompt) -> Tensor:
        """The number of the user whose taste counts; -1 for everybody's."""
        named = prompt.meta.get(self.head.user_column) if self.head.users else None
        return torch.tensor(self.head.users.index(named) if named in self.head.users else -1)

    def _recall(self, facts: Mapping[str, Any]) -> None:
        """Take what the saved model knows of itself for every option that was left at its default."""
        plain = {f.name: f for f in fields(self)}
        for name in RECALLED:
            if name not in facts:
                continue
            known = HeadOptions(**facts[name]) if name == "head" else facts[name]
            option = plain[name]
            default = option.default_factory() if callable(option.default_factory) else option.default
            if getattr(self, name) == default:
                setattr(self, name, known)
            elif name == "head" and (more := _more_users(known, self.head)):
                self.newcomers = more
            elif name in ("head", "judges") and getattr(self, name) != known:
                raise ConfigError(f"{name}: {self.model} was saved with {known}; leave the option out.")


def _more_users(known: HeadOptions, wanted: HeadOptions) -> int:
    """How many users the wanted head has behind those that are known, if it is the same otherwise; else 0."""
    count = len(known.users)
    if wanted.kind != known.kind or not count or wanted.users[:count] != known.users:
        return 0
    return len(wanted.users) - count if replace(wanted, users=known.users) == known else 0


def _base_of(folder: Path) -> str:
    """The model that the LoRA in `folder` goes on, found by the way to it where both were moved."""
    return base_of(folder, read_facts(folder).get(WAY))


__all__ = ["RewardModel"]
