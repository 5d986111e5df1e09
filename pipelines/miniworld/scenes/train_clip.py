"""Train the scenes' open_clip model, and a differently built second one to judge with.

``pipelines.miniworld clip`` makes ``assets/scenes_clip``; with ``--judge --out assets/scenes_judge`` the
other. Both load with ``open_clip.create_model_and_transforms("local-dir:<folder>")``.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.miniworld.grammar import Request, hard_negatives
from mmalign.miniworld.language import holds
from mmalign.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.clip_examples import Batch, distort, make_examples
from pipelines.miniworld.scenes.pictures import draw_pictures
from pipelines.miniworld.scenes.scene_facts import asked_layout, fact_count, layout_size
from pipelines.miniworld.scenes.words import CAPTION_TOKENS, build_tokenizer

if TYPE_CHECKING:
    import torch
    from open_clip import CLIP

MEAN, DEVIATION = (0.75, 0.75, 0.75), (0.25, 0.25, 0.25)
CHOICES = 32
#: Of matching, reading patches, answering questions, laying things out and reading how captions lay them out.
LOSS_WEIGHTS = (1.0, 0.3, 0.1, 1.0, 1.0)


def model_config(judge: bool = False) -> dict[str, Any]:
    """What goes into ``open_clip_config.json``; the judge has other patches, widths and depths.

    Fixed places and a mean over patches: each patch can then say what stands where on its own, and the mean adds it up.
    With a learned place and one class token, counts came late and "left of" not at all.
    """
    tokenizer = build_tokenizer()
    vision: dict[str, Any] = {
        "image_size": IMAGE_SIZE,
        "layers": 5,
        "width": 128,
        "head_width": 32,
        "mlp_ratio": 3.0,
        "patch_size": 8,
    }
    vision |= {"pos_embed_type": "sin_cos_2d", "pool_type": "avg", "final_ln_after_pool": True}
    text: dict[str, Any] = {"width": 128, "heads": 4, "layers": 3}
    if judge:
        vision |= {"layers": 6, "width": 192, "head_width": 48, "patch_size": 16}
        text = {"width": 96, "heads": 3, "layers": 4}
    text |= {
        "context_length": CAPTION_TOKENS,
        "vocab_size": len(tokenizer),
        "hf_tokenizer_name": "here",  # any name: a local folder's own tokenizer is used
        "pool_type": "eos",
        "eos_id": tokenizer.eos_token_id,
    }
    return {
        "model_cfg": {"embed_dim": 96 if judge else 128, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"size": IMAGE_SIZE, "mean": MEAN, "std": DEVIATION, "resize_mode": "squash"},
    }


def build_model(config: dict[str, Any]) -> "CLIP":
    """Build an untrained open_clip model."""
    from open_clip import CLIP

    return CLIP(**config["model_cfg"])


def normalise(images: "torch.Tensor") -> "torch.Tensor":
    """``(B, 3, 64, 64)`` in [0, 1] as the model wants it."""
    return (images - MEAN[0]) / DEVIATION[0]


def score(model: "CLIP", images: np.ndarray, captions: list[list[str]]) -> np.ndarray:
    """Cosines of each image with its own captions.

    Args:
        model: a trained model.
        images: ``(n, 3, 64, 64)`` in [0, 1].
        captions: ``n`` lists of equal length ``k``.

    Returns:
        ``(n, k)`` cosines.
    """
    import torch

    tokenizer = build_tokenizer()
    flat = [caption for row in captions for caption in row]
    padding = {"padding": "max_length", "max_length": CAPTION_TOKENS, "truncation": True}
    tokens = tokenizer(flat, return_tensors="pt", **padding).input_ids
    with torch.no_grad():
        seen = model.encode_image(normalise(torch.from_numpy(images).float()), normalize=True)
        read = torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(1024)])
    return torch.einsum("nd,nkd->nk", seen, read.view(len(images), -1, seen.shape[1])).numpy()


def accuracy(
    model: "CLIP", n: int, seed: int = 20_001, split: str = "heldout", autoencoder: Path | None = None
) -> float:
    """How often the true caption wins against 31 with one change (more where those run out), on new scenes."""
    images, requests, scenes = draw_pictures(n, seed, split)
    images = images.astype(np.float32) / 255
    if autoencoder is not None:
        from diffusers import AutoencoderKL

        from mmalign.loading.networks import open_network

        images = distort(images, open_network(autoencoder, AutoencoderKL), 0.0, seed)
    rng = np.random.default_rng(seed)
    rows = []
    for request, scene in zip(requests, scenes, strict=True):
        others = hard_negatives(request, CHOICES - 1, rng, scene)
        rows.append([request.text, *(other.text for other in others)])
    training = model.training
    model.eval()
    cosines = score(model, images, rows)
    model.train(training)
    return float((cosines.argmax(axis=1) == 0).mean())


class Readers:
    """Throw-away heads that teach the towers to see and to read before they can match.

    One names the thing in each patch; the others answer questions about the scene and tell where its things stand from
    the embedding itself, which makes the tower carry counts and arrangements there long before captions reward it. The
    last reads from a caption's embedding where it puts things: without it "above" and "below" stay one word for long.
    """

    def __init__(self, width: int, embedding: int) -> None:
        import torch

        self.patch = torch.nn.Linear(width, 1 + len(SHAPES) + len(COLORS) + len(SIZES))
        self.fact = torch.nn.Linear(embedding, fact_count())
        self.layout = torch.nn.Linear(embedding, layout_size())
        self.asked = torch.nn.Linear(embedding, layout_size())

    def parameters(self) -> "list[torch.nn.Parameter]":
        """The parameters of all heads."""
        return [*self.patch.parameters(), *self.fact.parameters(), *self.layout.parameters(), *self.asked.parameters()]

    def patch_loss(self, patches: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropies of patch tokens ``(B, P, width)`` against labels ``(B, P, 3)`` of ``patch_labels``."""
        from torch.nn.functional import cross_entropy

        shapes, colors, sizes = self.patch(patches).float().split([1 + len(SHAPES), len(COLORS), len(SIZES)], dim=-1)
        filled = labels[..., 0] > 0
        return (
            cross_entropy(shapes.flatten(0, 1), labels[..., 0].flatten())
            + cross_entropy(shapes[filled], labels[filled][:, 0])
            + cross_entropy(colors[filled], labels[filled][:, 1])
            + cross_entropy(sizes[filled], labels[filled][:, 2])
        )

    def fact_loss(self, pooled: "torch.Tensor", facts: "torch.Tensor") -> "torch.Tensor":
        """Binary cross-entropies of embeddings ``(B, d)`` against ``scene_facts``, summed over the questions."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(self.fact(pooled), facts, reduction="none").sum(dim=-1).mean()

    def layout_loss(self, pooled: "torch.Tensor", layouts: "torch.Tensor") -> "torch.Tensor":
        """Squared errors of embeddings ``(B, d)`` against ``scene_layout``, summed over the kinds."""
        return (self.layout(pooled) - layouts).square().sum(dim=-1).mean()

    def asked_loss(self, read: "torch.Tensor", captions: list[Request]) -> "torch.Tensor":
        """Squared errors of caption embeddings ``(M, d)`` against ``asked_layout``, summed over the kinds."""
        import torch

        layouts = torch.from_numpy(np.stack([asked_layout(caption) for caption in captions]))
        return (self.asked(read) - layouts).square().sum(dim=-1).mean()


def contrast(seen: "torch.Tensor", read: "torch.Tensor", true: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
    """Softmax losses both ways; other captions that happen to be true of an image are left out, not punished.

    Args:
        seen: ``(B, d)`` unit image embeddings.
        read: ``(M, d)`` unit caption embeddings, the first ``B`` being the images' own.
        true: ``(B, M)`` bool, which captions hold of which image.
        scale: what cosines are multiplied by.
    """
    import torch
    from torch.nn.functional import cross_entropy

    batch = len(seen)
    own = torch.arange(batch)
    excused = true.clone()
    excused[own, own] = False
    logits = (scale * seen @ read.T).float().masked_fill(excused, -1e4)
    return (cross_entropy(logits, own) + cross_entropy(logits[:, :batch].T, own)) / 2


def train_step(model: "CLIP", readers: Readers, batch: Batch, tokens: "torch.Tensor") -> "torch.Tensor":
    """Losses of one batch: matching, reading patches, answering questions, layouts seen and read; ``(5,)``."""
    import torch
    from torch.nn.functional import normalize

    true = torch.tensor([[all(holds(scene, request)) for request in batch.captions] for scene in batch.scenes])
    # Full precision: at these widths bfloat16 is no faster on a CPU.
    pooled, patches = model.visual(normalise(batch.images))
    text_features = model.encode_text(tokens)
    seen, read = normalize(pooled, dim=-1), normalize(text_features, dim=-1)
    matching = contrast(seen, read, true, model.logit_scale.exp())
    reading = readers.patch_loss(patches, batch.patches)
    head_losses = readers.fact_loss(pooled, batch.facts), readers.layout_loss(pooled, batch.layouts)
    return torch.stack([matching, reading, *head_losses, readers.asked_loss(text_features, batch.captions)])


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    With ``arranged`` the image tower is left as it is, but for its last projection, and captions of arrangements learn
    to read from it what stands where. ``rebuilt`` pictures have been through the autoencoder.
    """

    steps: int = 5000
    seed: int = 0
    rebuilt: int = 4000
    lr: float = 1e-3
    weight_decay: float = 0.05
    arranged: bool = False


def train(model: "CLIP", config: dict[str, Any], out: Path, autoencoder: Path, phase: Phase) -> dict[str, Any]:
    """Train in place, saving after every report; returns the provenance."""
    import torch

    started, batch, report_every = time.time(), 64, 250
    material = make_examples(phase.rebuilt, phase.seed, config["model_cfg"]["vision_cfg"]["patch_size"], autoencoder)
    print(f"{phase.rebuilt} rebuilt pictures after {time.time() - started:.0f} s", flush=True)
    readers = Readers(config["model_cfg"]["vision_cfg"]["width"], config["model_cfg"]["embed_dim"])
    if phase.arranged:
        model.visual.requires_grad_(False)
        model.visual.proj.requires_grad_(True)
    weights = [weight for weight in [*model.parameters(), *readers.parameters()] if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=phase.lr, weight_decay=phase.weight_decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, phase.lr, total_steps=phase.steps, pct_start=0.08)
    recent = []
    for step in range(1, phase.steps + 1):
        model.visual.output_tokens = True
        drawn = material.draw(batch, phase.arranged and step % 4 != 0)
        losses = train_step(model, readers, drawn, material.tokens(drawn.captions))
        optimizer.zero_grad()
        losses.dot(torch.tensor(LOSS_WEIGHTS)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        recent.append(losses.detach().numpy())
        if step % report_every == 0 or step == phase.steps:
            model.visual.output_tokens = False
            seconds, chosen = round(time.time() - started), accuracy(model, 128)
            means = np.round(np.mean(recent, axis=0), 4).tolist()
            print(f"step {step} losses {means} heldout {chosen:.3f} {seconds} s", flush=True)
            provenance = asdict(phase) | {"steps": step, "batch": batch, "seconds": seconds}
            if step < phase.steps:
                save(model, config, out, provenance | {"metrics": {"heldout_accuracy_of_32": chosen}})
            recent = []
    return provenance


def save(model: "CLIP", config: dict[str, Any], out: Path, provenance: dict[str, Any]) -> None:
    """Save as open_clip's local folders are."""
    from safetensors.torch import save_file

    def write(folder: Path) -> None:
        (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors")
        build_tokenizer(CAPTION_TOKENS).save_pretrained(folder)

    save_atomically(out, write, provenance)


def main(out: Path, autoencoder: Path, phase: Phase = Phase(), judge: bool = False, start: Path | None = None) -> None:
    """Train and save to the folder ``out``, from ``start`` if there is an earlier one."""
    import torch
    from safetensors.torch import load_file

    torch.manual_seed(phase.seed)
    config = model_config(judge)
    model = build_model(config)
    if start:
        model.load_state_dict(load_file(start / "open_clip_model.safetensors"))
    provenance = train(model, config, out, autoencoder, phase)
    if start:
        provenance["earlier"] = json.loads((start / "provenance.json").read_text(encoding="utf-8"))
    metrics = {
        "heldout_accuracy_of_32": accuracy(model, 512),
        "heldout_accuracy_of_32_after_autoencoder": accuracy(model, 512, autoencoder=autoencoder),
        "train_split_accuracy_of_32": accuracy(model, 512, split="train"),
        "n": 512,
    }
    save(model, config, out, provenance | {"metrics": metrics})
    print(metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/scenes_clip"))
    parser.add_argument("--autoencoder", type=Path, default=Path("assets/scenes_sd3/vae"))
    parser.add_argument("--start", type=Path, help="go on from this saved model")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--arranged", action="store_true", help="teach arrangements, the image tower fixed")
    for option in (option for option in fields(Phase) if option.name != "arranged"):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    given = vars(parser.parse_args())
    chosen = Phase(**{option.name: given.pop(option.name) for option in fields(Phase)})
    main(**given, phase=chosen)
