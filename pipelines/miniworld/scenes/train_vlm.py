"""Train the scenes' vision-language model: it describes pictures, answers yes/no questions and finds things.

``pipelines.miniworld vlm`` makes ``assets/scenes_vlm``, a LLaVA of transformers: the image tower of
``assets/scenes_clip``, a projector and a small Llama. With careless captions or loose boxes it makes the captioner and
the grounder of the quickstart, which rewards mend (`retrain`).
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.questions import NO, YES
from mmalign.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES
from mmalign.miniworld.verifier import read_scene
from mmalign.miniworld.vlm_examples import Course, Examples
from pipelines.miniworld.half import half_where_fast
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.clip_examples import distort
from pipelines.miniworld.scenes.generated_pictures import generated_pictures
from pipelines.miniworld.scenes.pictures import draw_pictures
from pipelines.miniworld.scenes.vlm_batches import Batch, Packing
from pipelines.miniworld.scenes.vlm_measures import measure
from pipelines.miniworld.scenes.vlm_model import IMAGE, IMAGE_TOKENS, build_model, build_processor, see_as

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

#: Of answers, of naming patches and of placing what they show.
LOSS_WEIGHTS = (1.0, 0.2, 0.2)
#: How much more a wrong yes or no counts than another word.
JUDGED_WEIGHT = 2.0
#: By how many pixels a demonstrated number is blurred.
NUMBER_SPREAD = 1.0


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
    by likeness, in combinations never seen too; an empty patch reads as the placeholder of pictures.
    """

    def __init__(self, processor: "LlavaProcessor", width: int) -> None:
        import torch

        named = [[IMAGE, *SHAPES], COLORS, SIZES]
        self.words = [processor.tokenizer.convert_tokens_to_ids(list(words)) for words in named]
        self.place = torch.nn.Linear(width, 4)

    def losses(self, tokens: "torch.Tensor", table: "torch.Tensor", batch: Batch) -> "torch.Tensor":
        """The losses of naming patches and of placing their things, ``(2,)``.

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


def wanted_tokens(processor: "LlavaProcessor") -> "torch.Tensor":
    """``(vocabulary, vocabulary)``, a row of weights for every token that may be right.

    Itself alone, twice as much for yes and no; but for a number also the numbers near it, so that a pixel beside the
    edge is hardly wrong: 65 unrelated words would take long to learn.
    """
    import torch

    tokenizer = processor.tokenizer
    wanted = torch.eye(len(tokenizer))
    wanted[tokenizer.convert_tokens_to_ids([YES, NO])] *= JUDGED_WEIGHT
    numbers = torch.tensor(tokenizer.convert_tokens_to_ids([str(number) for number in range(IMAGE_SIZE + 1)]))
    apart = torch.arange(IMAGE_SIZE + 1.0)[:, None] - torch.arange(IMAGE_SIZE + 1.0)
    wanted[numbers[:, None], numbers] = (-0.5 * (apart / NUMBER_SPREAD) ** 2).softmax(-1)
    return wanted


def losses(
    model: "LlavaForConditionalGeneration", reader: Reader, batch: Batch, wanted: "torch.Tensor"
) -> "torch.Tensor":
    """The losses of the answers' tokens, of naming and of placing, ``(3,)``.

    ``wanted[t]`` is what is wanted where token t is right.
    """
    import torch

    inside = model.model
    table = inside.language_model.embed_tokens.weight
    pictures = inside.multi_modal_projector(inside.vision_tower(batch.pixels).last_hidden_state[:, 1:])
    embedded = torch.cat([pictures, table[batch.ids[:, IMAGE_TOKENS:]]], dim=1)
    hidden = inside.language_model(
        inputs_embeds=embedded, attention_mask=batch.seen, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    mask = batch.targets >= 0
    soft = wanted[batch.targets[mask]]
    answers = -(soft * model.lm_head(hidden[mask]).float().log_softmax(-1)).sum() / soft.sum()
    return torch.cat([answers[None], reader.losses(pictures, table, batch)])


def make_examples(rebuilt: int, captions: int, seed: int, runs: Path) -> Examples:
    """Truth scenes, ``rebuilt`` of them passed through the autoencoder, and two generated pictures a caption."""
    from diffusers import AutoencoderKL

    from mmalign.loading.networks import open_network

    plain, requests, scenes = draw_pictures(rebuilt, 500_000 + seed)
    autoencoder = open_network(asset_path("scenes_sd3") / "vae", AutoencoderKL)
    looks = np.round(distort(plain.astype(np.float32) / 255, autoencoder, 0.1, seed) * 255).astype(np.uint8)
    made, made_requests = generated_pictures(runs / "scenes_generated_train.npz", "train", captions)
    read = [read_scene(image / np.float32(255)) for image in made]
    return Examples(
        np.concatenate([looks, made]), scenes + read, requests + made_requests, np.random.default_rng([8, seed])
    )


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    ``tower`` is the image tower's rate relative to the rest, which cannot see yet; with 0 the tower stays as it is. For
    the first ``hidden`` of all steps some empty patches of every picture are hidden, most of them at first.
    """

    steps: int = 6000
    seed: int = 0
    lr: float = 1.3e-3
    weight_decay: float = 0.05
    batch: int = 12
    rebuilt: int = 1000
    asked: int = 9
    captions: float = 0.6
    boxes: float = 0.9
    careless: float = 0.0
    loose: float = 0.0
    unseen: float = 0.3
    tower: float = 0.3
    hidden: float = 0.2
    report_every: int = 500


def train(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", out: Path, runs: Path, phase: Phase
) -> dict[str, Any]:
    """Train in place, saving after every report; returns the provenance."""
    import torch

    started = time.time()
    material = make_examples(phase.rebuilt, 900, phase.seed, runs)
    packing = Packing(processor, material.rng)
    course = Course(phase.asked, phase.captions, phase.boxes, phase.careless, phase.loose, phase.unseen)
    reader = Reader(processor, model.config.text_config.hidden_size)
    tower = list(model.model.vision_tower.requires_grad_(phase.tower > 0).parameters())
    fresh = [weight for weight in model.parameters() if not any(weight is other for other in tower)]
    groups = [{"params": tower}, {"params": [*fresh, *reader.place.parameters()]}]
    rates = [phase.tower * phase.lr, phase.lr]
    optimizer = torch.optim.AdamW(groups, lr=phase.lr, weight_decay=phase.weight_decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=phase.steps, pct_start=0.08)
    print(f"{len(material.made)} pictures made after {time.time() - started:.0f} s", flush=True)
    recent, attention = [], attend_in_full_precision()
    wanted = wanted_tokens(processor)
    for step in range(1, phase.steps + 1):
        model.set_attn_implementation(attention)
        hidden = max(0.0, 1 - step / (phase.hidden * phase.steps)) if phase.hidden else 0.0
        with half_where_fast():
            terms = losses(model, reader, packing.batch(material.draw(phase.batch, course), hidden), wanted)
        optimizer.zero_grad()
        terms.dot(torch.tensor(LOSS_WEIGHTS)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(terms.detach().numpy())
        if step % 25 == 0:
            print(
                f"step {step} losses {np.mean(recent[-25:], axis=0).round(4)} {time.time() - started:.0f} s", flush=True
            )
        if step % phase.report_every == 0 or step == phase.steps:
            model.set_attn_implementation("sdpa")
            metrics = measure(model, processor, 64 if step < phase.steps else 128, runs)
            seconds = round(time.time() - started)
            print(f"step {step} {metrics} {seconds} s", flush=True)
            provenance = asdict(phase) | {"steps": step, "seconds": seconds, "metrics": metrics}
            save(model, processor, out, provenance)
            recent = []
    return provenance


def save(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", out: Path, provenance: dict[str, Any]
) -> None:
    """Save the model as transformers does."""

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
    """Train and save to the folder ``out``, from ``start`` if there is an earlier one, seeing as ``clip`` does."""
    import torch
    from transformers import LlavaForConditionalGeneration

    from mmalign.loading.networks import open_network

    torch.manual_seed(phase.seed)
    processor = build_processor()
    earlier = json.loads((start / "provenance.json").read_text(encoding="utf-8")) if start else None
    model = open_network(start, LlavaForConditionalGeneration) if start else build_model(processor)
    model.train().requires_grad_(True)
    if clip or not start:
        see_as(model, clip or asset_path("scenes_clip"))
    provenance = train(model, processor, out, runs, phase)
    if earlier:
        save(model, processor, out, provenance | {"earlier": earlier})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/scenes_vlm"))
    parser.add_argument("--start", type=Path, help="go on from this saved model")
    parser.add_argument("--clip", type=Path, help="begin with its image tower; assets/scenes_clip without --start")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where generated pictures are kept")
    for option in fields(Phase):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    given = vars(parser.parse_args())
    chosen = Phase(**{option.name: given.pop(option.name) for option in fields(Phase)})
    main(**given, phase=chosen)
