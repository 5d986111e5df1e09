"""Train the scenes' vision-language model: it describes pictures, answers yes/no questions and finds things.

``python -m mmalign.miniworld.train_vlm`` makes ``assets/scenes_vlm``, a LLaVA of transformers: the image tower of
``assets/scenes_clip``, a projector and a small Llama. It judges well, and describes and finds less well: that is left
for rewards to teach.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.boxes import box_of
from mmalign.miniworld.clip_examples import distort, patch_labels, soften
from mmalign.miniworld.clip_tower import vision_weights
from mmalign.miniworld.generated_pictures import generated_pictures
from mmalign.miniworld.pictures import draw_pictures
from mmalign.miniworld.provenance import save_atomically
from mmalign.miniworld.questions import CAPTION, NO, YES
from mmalign.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES, Scene
from mmalign.miniworld.verifier import read_scene
from mmalign.miniworld.vlm_examples import INSTRUCTION, Course, Examples, Shown
from mmalign.miniworld.vlm_measures import measure
from mmalign.miniworld.words import grammar_words

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

PAD, END, ANSWER, UNKNOWN, IMAGE = "<|pad|>", "<|end|>", "<|answer|>", "<|unknown|>", "<image>"
PATCH, CONTEXT = 8, 192
#: The tower has learned to see already; it moves this much slower than the rest.
TOWER_RATE = 0.3
#: Of answers, of naming patches and of placing what they show.
LOSS_WEIGHTS = (1.0, 0.2, 0.2)
#: How much more a wrong yes or no counts than another word.
JUDGED_WEIGHT = 2.0
IMAGE_TOKENS = (IMAGE_SIZE // PATCH) ** 2
_TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|answer|>{% endif %}"
)


def words() -> list[str]:
    """Everything that is said: words of captions and questions, marks, and the numbers of a box."""
    asked = f"is are there exactly one thing things the where {CAPTION} {INSTRUCTION} {YES} {NO}"
    marks = ["[", "]", ",", ".", "?"]
    plain = {word.strip(".").lower() for word in asked.split()}
    return [*sorted({*grammar_words(), *plain}), *marks, *map(str, range(IMAGE_SIZE + 1))]


def build_processor() -> "LlavaProcessor":
    """One token a word, mark or number; upper and lower case are the same."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Punctuation, Sequence, WhitespaceSplit
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([PAD, END, ANSWER, UNKNOWN, IMAGE, *words()])}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = Lowercase()
    core.pre_tokenizer = Sequence([WhitespaceSplit(), Punctuation("isolated")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE, "answer_token": ANSWER},
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessor(
        size=size, do_center_crop=False, crop_size=size, image_mean=[0.75] * 3, image_std=[0.25] * 3
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )


def build_model(processor: "LlavaProcessor", clip: Path) -> "LlavaForConditionalGeneration":
    """A LLaVA whose image tower is that of the open_clip model in the folder ``clip``; the rest is untrained."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=384, num_hidden_layers=5, num_attention_heads=4, image_size=IMAGE_SIZE,
        patch_size=PATCH, hidden_act="gelu",
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=IMAGE_TOKENS,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    missing = model.model.vision_tower.load_state_dict(vision_weights(clip), strict=False).missing_keys
    if any("position_ids" not in name for name in missing):
        raise ValueError(f"{clip} is no image tower of this shape: it lacks {', '.join(missing)}")
    return model


@dataclass
class Batch:
    """Pictures, each with all its lessons behind it; a lesson sees the picture and itself alone."""

    pixels: "torch.Tensor"  # (B, 3, 64, 64), as the processor makes them
    ids: "torch.Tensor"  # (B, L)
    positions: "torch.Tensor"  # (B, L); every lesson starts where the picture ends
    seen: "torch.Tensor"  # (B, 1, L, L) bool
    targets: "torch.Tensor"  # (B, L), the next token where it is part of an answer, and -100
    patches: "torch.Tensor"  # (B, patches, 3), see patch_labels
    places: "torch.Tensor"  # (B, patches, 4), boxes of the things in units of eight pixels


def patch_places(scenes: list[Scene]) -> np.ndarray:
    """``(n, patches, 4)`` float32: the box of what is centred in each patch, in units of eight pixels, else 0."""
    across = IMAGE_SIZE // PATCH
    places = np.zeros((len(scenes), across * across, 4), dtype=np.float32)
    for row, scene in zip(places, scenes, strict=True):
        for thing in scene.things:
            row[int(thing.y) // PATCH * across + int(thing.x) // PATCH] = np.array(box_of(thing)) / 8
    return places


class Packing:
    """Turns shown pictures into batches."""

    def __init__(self, processor: "LlavaProcessor", rng: np.random.Generator) -> None:
        self.tokenizer, self.rng = processor.tokenizer, rng
        self.image_id = self.tokenizer.convert_tokens_to_ids(IMAGE)
        self._kept: dict[str, list[int]] = {}

    def tokens(self, text: str) -> list[int]:
        """Ids of a text."""
        if text not in self._kept:
            self._kept[text] = self.tokenizer(text).input_ids
        return self._kept[text]

    def batch(self, shown: list[Shown]) -> Batch:
        """Pack and pad."""
        import torch

        rows = [self._row(one) for one in shown]
        width = max(len(row[0]) for row in rows)
        ids, positions, lessons = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
        targets = torch.full((len(rows), width), -100)
        for at, row in enumerate(rows):
            for tensor, values in zip((ids, positions, lessons, targets), row, strict=True):
                tensor[at, : len(values)] = torch.tensor(values)
        # Padding counts to the picture: it stands behind everything, where nothing looks.
        same = (lessons[:, None, :, None] == lessons[:, None, None, :]) | (lessons == 0)[:, None, None, :]
        seen = same & torch.ones(width, width, dtype=torch.bool).tril()
        images = soften(np.stack([one.image for one in shown]), self.rng)
        clean = [Scene(tuple(thing for thing in one.scene.things if thing.shape in SHAPES)) for one in shown]
        patches, places = torch.from_numpy(patch_labels(clean, PATCH)), torch.from_numpy(patch_places(clean))
        return Batch(torch.from_numpy(images - 0.75) / 0.25, ids, positions, seen, targets, patches, places)

    def _row(self, shown: Shown) -> tuple[list[int], list[int], list[int], list[int]]:
        """Ids, positions, number of the lesson (0 for the picture) and targets."""
        ids, positions = [self.image_id] * IMAGE_TOKENS, list(range(IMAGE_TOKENS))
        numbers, targets = [0] * IMAGE_TOKENS, [-100] * IMAGE_TOKENS
        for number, (question, answer) in enumerate(shown.lessons, start=1):
            asked, said = self.tokens(f"{question} {ANSWER}"), self.tokens(f"{answer} {END}")
            ids += asked + said[:-1]
            numbers += [number] * (len(asked) + len(said) - 1)
            positions += range(IMAGE_TOKENS, IMAGE_TOKENS + len(asked) + len(said) - 1)
            targets += [-100] * (len(asked) - 1) + said
        return ids, positions, numbers, targets


def attend_in_full_precision() -> str:
    """The name of an attention in float32 inside a bfloat16 autocast: half the time of bfloat16's own on a CPU."""
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)

    AttentionInterface.register("sdpa_float32", attend)
    return "sdpa_float32"


class Reader:
    """Teaches the projector to say in the language model's own words what stands in each patch, and where exactly.

    A picture's token then lies where the embeddings of its shape, color and size do, so that a question's words find it
    by likeness, in combinations never seen too; an empty patch reads as the placeholder of pictures. Without this the
    language model was hardly better than a guess after 600 steps.
    """

    def __init__(self, processor: "LlavaProcessor", width: int) -> None:
        import torch

        named = [[IMAGE, *SHAPES], COLORS, SIZES]
        self.words = [processor.tokenizer.convert_tokens_to_ids(list(words)) for words in named]
        self.place = torch.nn.Linear(width, 4)

    def losses(self, tokens: "torch.Tensor", table: "torch.Tensor", batch: Batch) -> "torch.Tensor":
        """Of naming patches and of placing their things, ``(2,)``.

        Args:
            tokens: ``(B, patches, width)``, as the language model gets them.
            table: ``(vocabulary, width)``, its embeddings.
            batch: what there is.
        """
        import torch
        from torch.nn.functional import cross_entropy

        filled = batch.patches[..., 0] > 0
        naming = cross_entropy((tokens @ table[self.words[0]].T).flatten(0, 1).float(), batch.patches[..., 0].flatten())
        for at, words in enumerate(self.words):
            read = tokens[filled] @ table[words].T
            naming = naming + cross_entropy(read.float(), batch.patches[filled][:, at])
        placing = (self.place(tokens[filled]).float() - batch.places[filled]).abs().mean()
        return torch.stack([naming, placing])


def losses(
    model: "LlavaForConditionalGeneration", reader: Reader, batch: Batch, weights: "torch.Tensor | None" = None
) -> "torch.Tensor":
    """Of the answers' tokens (weighted by the vocabulary's), of naming patches and of placing things, ``(3,)``."""
    import torch
    from torch.nn.functional import cross_entropy

    inside = model.model
    table = inside.language_model.embed_tokens.weight
    pictures = inside.multi_modal_projector(inside.vision_tower(batch.pixels).last_hidden_state[:, 1:])
    embedded = torch.cat([pictures, table[batch.ids[:, IMAGE_TOKENS:]]], dim=1)
    hidden = inside.language_model(
        inputs_embeds=embedded, attention_mask=batch.seen, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    said = batch.targets >= 0
    answers = cross_entropy(model.lm_head(hidden[said]).float(), batch.targets[said], weights)
    return torch.cat([answers[None], reader.losses(pictures, table, batch)])


def make_examples(rebuilt: int, captions: int, seed: int, runs: Path) -> Examples:
    """Truth scenes, ``rebuilt`` of them passed through the autoencoder, and two generated pictures a caption."""
    from diffusers import AutoencoderKL

    plain, requests, scenes = draw_pictures(rebuilt, 500_000 + seed)
    autoencoder = AutoencoderKL.from_pretrained(asset_path("scenes_sd3") / "vae")
    looks = np.round(distort(plain.astype(np.float32) / 255, autoencoder, 0.1, seed) * 255).astype(np.uint8)
    made, asked = generated_pictures(runs / "scenes_generated_train.npz", "train", captions)
    read = [read_scene(image / np.float32(255)) for image in made]
    return Examples(np.concatenate([looks, made]), scenes + read, requests + asked, np.random.default_rng([8, seed]))


@dataclass(frozen=True)
class Phase:
    """One stretch of training."""

    steps: int = 2000
    seed: int = 0
    lr: float = 1e-3
    batch: int = 32
    rebuilt: int = 1000
    asked: int = 8
    captions: float = 1.0
    boxes: float = 1.0
    report_every: int = 150


def train(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", out: Path, runs: Path, phase: Phase
) -> dict[str, Any]:
    """Train in place, saving after every report; returns the provenance."""
    import torch

    started = time.time()
    material = make_examples(phase.rebuilt, 900, phase.seed, runs)
    packing, course = Packing(processor, material.rng), Course(phase.asked, phase.captions, phase.boxes)
    reader = Reader(processor, model.config.text_config.hidden_size)
    tower = list(model.model.vision_tower.parameters())
    fresh = [weight for weight in model.parameters() if not any(weight is other for other in tower)]
    groups = [{"params": tower}, {"params": [*fresh, *reader.place.parameters()]}]
    optimizer = torch.optim.AdamW(groups, lr=phase.lr, weight_decay=0.05, betas=(0.9, 0.98))
    rates = [TOWER_RATE * phase.lr, phase.lr]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=phase.steps, pct_start=0.08)
    print(f"{len(material.made)} pictures made after {time.time() - started:.0f} s", flush=True)
    recent, attention = [], attend_in_full_precision()
    weights = torch.ones(len(processor.tokenizer))
    weights[processor.tokenizer.convert_tokens_to_ids([YES, NO])] = JUDGED_WEIGHT
    for step in range(1, phase.steps + 1):
        model.set_attn_implementation(attention)
        with torch.autocast("cpu", torch.bfloat16):
            found = losses(model, reader, packing.batch(material.draw(phase.batch, course)), weights)
        optimizer.zero_grad()
        found.dot(torch.tensor(LOSS_WEIGHTS)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(found.detach().numpy())
        if step % 25 == 0:
            print(
                f"step {step} losses {np.mean(recent[-25:], axis=0).round(4)} {time.time() - started:.0f} s", flush=True
            )
        if step % phase.report_every == 0 or step == phase.steps:
            model.set_attn_implementation("sdpa")
            metrics = measure(model, processor, 64 if step < phase.steps else 256, runs)
            seconds = round(time.time() - started)
            print(f"step {step} {metrics} {seconds} s", flush=True)
            provenance = asdict(phase) | {"steps": step, "seconds": seconds, "metrics": metrics}
            save(model, processor, out, provenance)
            recent = []
    return provenance


def save(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", out: Path, provenance: dict[str, Any]
) -> None:
    """Save as transformers does."""

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    save_atomically(out, write, provenance)


def main(
    out: Path = Path("assets/scenes_vlm"),
    phase: Phase = Phase(),
    start: Path | None = None,
    clip: Path | None = None,
    runs: Path = Path("runs"),
) -> None:
    """Train and save to the folder ``out``, from ``start`` if there is an earlier one."""
    import torch
    from transformers import LlavaForConditionalGeneration

    torch.manual_seed(phase.seed)
    processor = build_processor()
    earlier = json.loads((start / "provenance.json").read_text(encoding="utf-8")) if start else None
    model = (
        LlavaForConditionalGeneration.from_pretrained(start)
        if start
        else build_model(processor, clip or asset_path("scenes_clip"))
    ).train()
    provenance = train(model, processor, out, runs, phase)
    if earlier:
        save(model, processor, out, provenance | {"earlier": earlier})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/scenes_vlm"))
    parser.add_argument("--start", type=Path, help="go on from this saved model")
    parser.add_argument("--clip", type=Path, help="whose image tower to begin with; assets/scenes_clip")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where generated pictures are kept")
    for option in fields(Phase):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    given = vars(parser.parse_args())
    chosen = Phase(**{option.name: given.pop(option.name) for option in fields(Phase)})
    main(**given, phase=chosen)
