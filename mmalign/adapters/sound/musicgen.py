"""MusicGen (Copet et al., 2306.05284): music as steps of K codebooks from a transformer that reads T5's states.

The codes of a step are independent given the steps before it, so a step's log-prob is the sum over its codebooks.
Guidance (sec. 3.1 of AudioGen, 2209.15352) mixes logits, u + s (c - u); what is sampled from, and
hence the density everywhere in here, is the softmax of the mix, whose gradient goes through both branches.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.bases.conditions import KeptTexts
from mmalign.adapters.bases.formats import Configs, SoundFormat
from mmalign.adapters.bases.pretrained_adapter import (
    default_device,
    input_dtype,
    mixed_precision,
    texts_only,
    torch_dtype,
)
from mmalign.adapters.bases.sound_adapter import checked_sound
from mmalign.adapters.bases.transformers_adapter import TransformersAdapter, checkpointed
from mmalign.adapters.sound._delays import Delays
from mmalign.adapters.weights.full import FullWeights, copy_into, read_tensors
from mmalign.adapters.weights.peft import PeftWeights, linear_endings
from mmalign.adapters.weights.reference import FrozenWeights
from mmalign.core.cuts import brief
from mmalign.core.encoded import EncodedStore, Kept, device_name, digest_of, machine, weights_sample
from mmalign.core.errors import CheckpointError, ConfigError, DataError, MmalignWarning
from mmalign.core.files import lasting
from mmalign.core.options import AtLeastOne, NotNegative, Positive
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio, Modality, Prompt
from mmalign.loading.files import check_component
from mmalign.loading.folders import network_folder
from mmalign.loading.foreign import Cache, ModelConfig, PretrainedModel, Tokenizer
from mmalign.loading.networks import open_speaker
from mmalign.loading.texts import open_tokenizer
from mmalign.loading.trained import BASE, Base, local_weights, named, read_base


@dataclass
class MusicGen(TransformersAdapter):
    """`TokenAdapter` around `MusicgenForConditionalGeneration`, mono or stereo; for policy `tokens`.

    A sound is as long as the policy's `max_new_tokens`: `steps(seconds)` says how many that are (50 a second and three
    for the published models). Nothing ends it sooner.

    Args:
        train: "lora" (of the decoder, saved as peft loads it on the whole model), "full" (the decoder, saved as
            `decoder/`, which `MusicgenForCausalLM.from_pretrained` reads), or "frozen" (inside a reward).
        lora: on every linear layer of the decoder's blocks unless it names others; without dropout.
        dtype: of frozen weights and of the network's arithmetic (autocast); EnCodec stays float32.
        guidance_scale: of sampling, evaluation and every log-prob; 1 is none, and half the cost.
        guided_density: log-probs are those of what is sampled from; false: those of the prompt's branch alone, which
            is what fine-tuning (objective sft) trains, while sampling stays guided.
        seconds: length that given sounds (SFT, DPO) are cut and filled up to; None leaves each as long as it is.
        decode_rows: sounds decoded at once.
        cached_prompts: prompts whose states are kept, on the CPU.
    """

    guidance_scale: NotNegative = 3.0
    guided_density: bool = True
    seconds: Positive | None = None
    decode_rows: AtLeastOne = 4

    modality: ClassVar[Modality] = "audio"
    stop_ids: ClassVar[tuple[int, ...]] = ()

    tokenizer: Tokenizer = field(init=False, repr=False, compare=False)
    delays: Delays = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_scale < 1:
            raise ConfigError(f"guidance_scale: {self.guidance_scale:g} is below 1, where 1 is no guidance; raise it.")
        self._texts = KeptTexts(encode_text=self._read, capacity=self.cached_prompts)
        self._on_disk: Kept | None = None

    @staticmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Tell what the sounds of a checkpoint are like, by its configuration alone."""
        whole = configs("")
        return SoundFormat(whole["audio_encoder"]["sampling_rate"], whole["decoder"].get("audio_channels", 1))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one step, (K,): an entry for each codebook."""
        return (self.delays.codebooks,)

    @property
    def vocabulary(self) -> int:
        """The number V of codes of a codebook."""
        return int(self.network.model.decoder.config.vocab_size)

    @property
    def pad_id(self) -> int:
        """The delay pattern's fill, which is one past the codes."""
        return self.delays.fill

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.network.model.audio_encoder.config.sampling_rate)

    def steps(self, seconds: float) -> int:
        """Return the policy's `max_new_tokens` for sounds of at least `seconds`."""
        return -int(-seconds * self.rate // self._hop) - 1 + self.delays.depth

    @property
    def _hop(self) -> int:
        """Samples of a step."""
        return int(self.network.model.audio_encoder.config.hop_length)

    def load_parts(self, device: torch.device) -> None:
        """Open the whole model; its decoder trains."""
        from mmalign.adapters.sound._musicgen_decoder import MusicGenDecoder

        folder, base, trained = self._folders()
        model = open_speaker(folder, torch.float32, "MusicgenForConditionalGeneration", self.attention)
        if trained is not None:
            copy_into(model.decoder, read_tensors(trained), trained)
        model.decoder.to(input_dtype(self.train, self.dtype))
        model.text_encoder.to(torch_dtype(self.dtype))
        self.tokenizer = open_tokenizer(folder)
        config = model.decoder.config
        self.delays = Delays(config.num_codebooks, config.audio_channels, config.pad_token_id)
        if self.train != "lora":
            self.lay_start(model)
            self.weights = FrozenWeights() if self.train == "frozen" else FullWeights(model.decoder, base)
        else:
            layers = model.decoder.model.decoder.layers
            names = [n for n, _ in layers.named_modules() if n.rpartition(".")[2] in linear_endings(layers)]
            targets = [f"decoder.model.decoder.layers.{name}" for name in names]
            self.weights = PeftWeights(model, self.lora, targets, **self.beginning(model), base=named(self.model))
        if self.gradient_checkpointing:
            model.decoder.activation_checkpointing_enable({"use_reentrant": False})
        self.placed(model.decoder, device)
        self.network = self.module = MusicGenDecoder(model.to(device)).eval()

    def model_of(self, config: ModelConfig) -> PretrainedModel:
        """Make the whole model of a configuration."""
        from transformers import MusicgenForConditionalGeneration

        return MusicgenForConditionalGeneration(config)

    def write_beside(self, directory: Path) -> None:
        """Write the tokenizer, and what else of the base reads and writes: its configurations of sound."""
        self.tokenizer.save_pretrained(directory)
        folder, _, _ = self._folders()
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, directory / name)

    def _folders(self) -> tuple[Path, Base, Path | None]:
        """Of the whole model, what it is called, and of a decoder that a run trained, which takes its own's place."""
        weights = local_weights(self.model)
        base = read_base(weights) if weights is not None else None
        if weights is None or base is None:
            own = Base(model=lasting(self.model), component="decoder", revision=self.revision)
            return network_folder(self.model, self.revision), own, None
        try:
            folder = network_folder(base.model, base.revision)
        except CheckpointError as error:
            raise CheckpointError(f"{weights / BASE}: its base model: {error}") from error
        check_component(weights / base.component)
        return folder, base, weights / base.component

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """Return `input_ids` (L,) and T5's `states` (L, D) of each prompt, on the CPU."""
        texts = texts_only(prompts, self.name)
        made = self._texts.look_up(list(dict.fromkeys(texts)))
        return [made[text] for text in texts]

    def unconditional(self, inputs: Sequence[Inputs]) -> list[Inputs]:
        """Return the inputs of generating without a prompt: states of zeros, as the model was trained (2306.05284)."""
        return [{**prompt, "states": torch.zeros_like(prompt["states"])} for prompt in inputs]

    def features(
        self,
        inputs: Sequence[Inputs],
        rows: Int[Tensor, " B"],
        tokens: Int[Tensor, "B T K"],
        mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T *branches D"]:
        """Return the state before each step, with gradient; guided (B, T, 2, D), the prompt's branch first."""
        self._require_positions(tokens.shape[1])
        start = tokens.new_full((len(tokens), 1, tokens.shape[2]), self.pad_id)
        before, (states, known) = torch.cat([start, tokens[:, :-1]], 1), self._states(inputs, rows)
        if self.guided_density:
            before = self._branched(before)
        else:
            states, known = states[: len(rows)], known[: len(rows)]
        with checkpointed(self.network) if torch.is_grad_enabled() else nullcontext():
            hidden = self._call(before, states, known, None, keep=False)[0]
        return self._unbranched(hidden) if self.guided_density else hidden

    def logits(self, features: Float[Tensor, "N *branches D"]) -> Float[Tensor, "N K V"]:
        """Return the logits (N, K, V) of N steps, with guidance."""
        with self.weights.lock.forward(), mixed_precision(features.device, self.dtype):
            logits = self.network.heads(features)
        if features.dim() == 2:
            return logits
        conditional, unconditional = logits.float().unbind(1)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    @without_gradient
    def begin(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> CodebookDecoding:
        """Forward the prompts and stand before the first of `steps` steps.

        Raises:
            DataError: they make no whole frame.
            ConfigError: they are more than the model has positions for.
        """
        self.delays.frames(steps)
        self._require_positions(steps)
        return CodebookDecoding(self, *self._states(inputs, rows))

    def forced(self, step: int, steps: int) -> Int[Tensor, " K"]:
        """Return the fill for codebooks that have not begun or have ended at this step, -1 where entries are free."""
        return torch.where(self.delays.free(steps)[step], -1, self.pad_id)

    @without_gradient
    def decode(self, tokens: Int[Tensor, "B T K"], mask: Bool[Tensor, "B T"]) -> Audio:
        """Decode completions to sound (B, channels, S), not clamped."""
        codec, channels = self.network.model.audio_encoder, self.delays.channels
        codes = self.delays.aligned(tokens)
        codes = codes.where(codes < self.vocabulary, 0)  # past the end of a shorter row
        parts = []
        for part in codes.split(self.decode_rows):
            sides = [part[:, side::channels] for side in range(channels)]
            with torch.autocast(codes.device.type, enabled=False):
                waves = [codec.decode(side[None], audio_scales=[None]).audio_values for side in sides]
            parts.append(torch.cat(waves, 1))
        hop = codec.config.hop_length
        ends = self.delays.depth - 1
        lengths = (mask.sum(1) - ends).clamp(min=0) * hop
        samples = torch.cat(parts).float()
        sounds = torch.arange(samples.shape[2], device=mask.device) < lengths[:, None]
        return Audio(samples, self.rate, None if bool(sounds.all()) else sounds)

    @without_gradient
    def tokenize(self, outputs: Audio) -> tuple[Int[Tensor, "B T K"], Bool[Tensor, "B T"]]:
        """Encode sounds as the codes that EnCodec gives them, each row as long as it sounds.

        Raises:
            MediaError: another rate, other channels, or samples that are not finite.
            DataError: a row without sound.
        """
        codec, channels = self.network.model.audio_encoder, self.delays.channels
        samples = checked_sound(outputs, self.rate, channels, outputs.samples.shape[2])
        rows = []
        for i, sound in enumerate(samples.to(self.device, torch.float32)):
            length = len(sound[0]) if outputs.mask is None else int(outputs.mask[i].sum())
            if length == 0:
                raise DataError(f"row {i}: a sound without samples has no codes.")
            sides = sound[:, None, None, :length]  # each channel by itself, as its codebooks are
            best = max(codec.config.target_bandwidths)
            with torch.autocast(sound.device.type, enabled=False):
                codes = [self._codes(side, best) for side in sides]
            rows.append(self.delays.delayed(torch.stack(codes, 1).flatten(0, 1)[None])[0])
        longest = max(len(row) for row in rows)
        tokens = torch.stack(
            [torch.nn.functional.pad(row, (0, 0, 0, longest - len(row)), value=self.pad_id) for row in rows]
        )
        lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
        return tokens, torch.arange(longest, device=tokens.device) < lengths[:, None]

    def _codes(self, side: Float[Tensor, "1 1 S"], bandwidth: float) -> Int[Tensor, "D F"]:
        """Encode one channel, or take what was made of it before."""

        def encode(sound: Tensor) -> Tensor:
            return self.network.model.audio_encoder.encode(sound, bandwidth=bandwidth).audio_codes[0, 0]

        made = encode(side) if self._on_disk is None else self._on_disk.once(side, encode)
        return made[: self.delays.depth].to(self.device)

    def keep_encoded(self, store: EncodedStore, media: bool = True) -> None:
        """From now on, make no states of a text and no codes of given sounds that `store` holds."""
        model, made_on = self.network.model, [*machine(), device_name(default_device(self.device))]
        readers = [model.text_encoder, *([model.enc_to_dec_proj] if hasattr(model, "enc_to_dec_proj") else [])]
        words = digest_of(repr(self.tokenizer), self.tokenizer.get_vocab())
        texts = digest_of(self.name, self.dtype, self.attention, words, weights_sample(readers), made_on)
        self._texts.on_disk = Kept(store, texts)
        self._on_disk = Kept(store, digest_of(weights_sample([model.audio_encoder]), made_on)) if media else None

    @without_gradient
    def _read(self, text: str) -> Inputs:
        ids = self.tokenizer([text], return_tensors="pt", truncation=False, verbose=False).input_ids
        if ids.shape[1] > (longest := self.tokenizer.model_max_length):  # T5 has no last position, only a longest text
            warnings.warn(
                f"musicgen: the prompt '{brief(text)}' has {ids.shape[1]} tokens, more than the {longest} that its T5 "
                "was made for; it is read whole, but shorten it.",
                MmalignWarning,
                stacklevel=2,
            )
        model = self.network.model
        states = model.text_encoder(ids.to(self.device)).last_hidden_state.float()
        if hasattr(model, "enc_to_dec_proj"):
            states = model.enc_to_dec_proj(states)
        return {"input_ids": ids[0], "states": states[0].cpu()}

    def _require_positions(self, steps: int) -> None:
        """transformers makes further positions without a word, on which nothing was trained."""
        known = int(self.network.model.decoder.config.max_position_embeddings)
        if steps > known:
            raise ConfigError(
                f"policy.max_new_tokens: {steps} steps, but {self.model} was made for {known}; past them it has "
                f"learned nothing. Set {known} or less ({known * self._hop / self.rate:.1f} s)."
            )

    def _states(self, inputs: Sequence[Inputs], rows: Tensor) -> tuple[Tensor, Tensor]:
        """The states and their mask of every row, then those of its unconditional twin: zeros, as it was trained."""
        longest = max(len(prompt["states"]) for prompt in inputs)
        states = torch.stack(
            [torch.nn.functional.pad(p["states"], (0, 0, 0, longest - len(p["states"]))) for p in inputs]
        )
        mask = torch.stack([torch.arange(longest) < len(p["states"]) for p in inputs])
        states, mask = states.to(self.device)[rows], mask.to(self.device)[rows]
        if self.guidance_scale == 1:
            return states, mask
        return torch.cat([states, torch.zeros_like(states)]), torch.cat([mask, mask])

    def _branched(self, tokens: Tensor) -> Tensor:
        return tokens if self.guidance_scale == 1 else torch.cat([tokens, tokens])

    def _unbranched(self, hidden: Tensor) -> Tensor:
        """(2 B, …, D) → (B, …, 2, D)."""
        return hidden if self.guidance_scale == 1 else torch.stack(hidden.chunk(2), -2)

    def _call(
        self, tokens: Tensor, states: Tensor, mask: Tensor, cache: Cache, keep: bool = True
    ) -> tuple[Tensor, Cache]:
        with mixed_precision(tokens.device, self.dtype):
            return self.module(
                input_ids=tokens.transpose(1, 2).flatten(0, 1),
                encoder_hidden_states=states.to(self.network.dtype),
                encoder_attention_mask=mask.long(),
                past_key_values=cache,
                use_cache=keep,
            )


class CodebookDecoding:
    """`Decoding` of codebooks: a cache that grows by one frame a step."""

    def __init__(self, adapter: MusicGen, states: Tensor, mask: Tensor) -> None:
        self._adapter, self._states, self._mask = adapter, states, mask
        self._cache: Cache = None
        rows = len(states) if adapter.guidance_scale == 1 else len(states) // 2
        self.advance(torch.full((rows, *adapter.event_shape), adapter.pad_id, device=states.device))

    def advance(self, tokens: Int[Tensor, "A K"]) -> None:
        """Append one step to every row; `features` are then those of the step after it."""
        adapter = self._adapter
        hidden, self._cache = adapter._call(adapter._branched(tokens[:, None]), self._states, self._mask, self._cache)
        self.features = adapter._unbranched(hidden[:, -1])

    def keep(self, rows: Int[Tensor, " K"]) -> None:
        """Go on with these rows only."""
        both = rows if self._adapter.guidance_scale == 1 else torch.cat([rows, rows + len(self._states) // 2])
        self._states, self._mask, self.features = self._states[both], self._mask[both], self.features[rows]
        self._cache.batch_select_indices(both)


__all__ = ["MusicGen"]
