"""Train the grammar head that rewards `clip_s` and `grammar` read, on the text tower of any CLIP model.

    python -m pipelines.grammar_head captions.txt --model ViT-B-32-quickgelu --pretrained openai --out heads/grammar
    python -m pipelines.grammar_head --scenes 6000 --checkpoint assets/scenes_clip --out assets/scenes_grammar

Captions, one a line, are the positives; the negatives are made of them (`rewards/text/_corruption.py`). The head is
that of Cho et al. 2022 (2205.13115) under its cross-entropy; their text tower is tuned with it, here it stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import require_local
from mmalign.miniworld.descriptions import sample_described
from mmalign.miniworld.language import CaptionError, parse
from mmalign.miniworld.splits import distinct_requests
from mmalign.rewards.models.clip_towers import Source, Towers, load_towers
from pipelines._command_line import parser
from pipelines._corruption import WAYS, corrupted

Judge = Callable[[str], bool]
HIDDEN = 512  # features between the head's two layers, the paper's
WEIGHT_DECAY = 0.5
#: Deviation of the noise on features, in their own deviations. Without it and with a tenth of the decay, the head took
#: two of three captions for broken whose colours and shapes it had never read together.
NOISE = 0.5


def examples(captions: list[str], each: int, well_formed: Judge, seed: int) -> tuple[list[str], list[str], Tensor]:
    """Texts, the way each was made ("" for a caption), and whether it is grammatical: as many are as are not."""
    rng = np.random.default_rng(seed)
    vocabulary = sorted({word for caption in captions for word in caption.split()})
    texts, ways = [], []
    for caption in captions:
        made = [(way, corrupted(caption, vocabulary, rng, well_formed, way)) for way in WAYS for _ in range(each)]
        negatives = [(way, text) for way, text in made if text is not None]
        texts += [text for _, text in negatives] + [caption] * len(negatives)
        ways += [way for way, _ in negatives] + [""] * len(negatives)
    return texts, ways, torch.tensor([not way for way in ways]).long()


def fit(features: Tensor, labels: Tensor, steps: int = 3000, rows: int = 256, seed: int = 0) -> nn.Sequential:
    """The head that tells the two apart: AdamW under a cosine schedule, features with a little noise."""
    torch.manual_seed(seed)
    hidden = nn.Linear(features.shape[1], HIDDEN, bias=False)
    head = nn.Sequential(hidden, nn.ReLU(), nn.Linear(HIDDEN, 2, bias=False))
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    spread = NOISE * features.std(0)
    for _ in range(steps):
        batch = torch.randint(len(labels), (rows,))
        seen = features[batch] + spread * torch.randn(rows, len(spread))
        loss = nn.functional.cross_entropy(head(seen), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head


def accuracy(head: nn.Module, towers: Towers, captions: list[str], well_formed: Judge) -> dict[str, float]:
    """The share told right of captions ("captions") and of what was made of them, way by way."""
    texts, ways, labels = examples(captions, 1, well_formed, seed=1)
    with torch.no_grad():
        right = (head(towers.pooled_texts(texts).cpu()).argmax(1) == labels).float()
    kinds = [way or "captions" for way in ways]
    return {kind: round(float(right[[k == kind for k in kinds]].mean()), 4) for kind in dict.fromkeys(kinds)}


def in_scenes(text: str) -> bool:
    """Is the text a caption of the miniworld's grammar? Then nothing is wrong with it, whatever it was made from."""
    try:
        return bool(parse(text))
    except CaptionError:
        return False


def apart(captions: list[str], well_formed: Judge) -> Judge:
    """`well_formed`, and what is itself one of the captions, however its blanks are set: no negative is a positive."""
    own = {" ".join(caption.split()) for caption in captions}
    return lambda text: text in own or well_formed(text)


def main(lines: list[str], source: Source, out: Path, well_formed: Judge, steps: int = 3000, seed: int = 0) -> None:
    """Train on nine captions of ten, measure on the tenth; writes `out/head.safetensors` and `out/provenance.json`."""
    from safetensors.torch import save_file

    judge, training, held_out = apart(lines, well_formed), [line for i, line in enumerate(lines) if i % 10], lines[::10]
    texts, _, labels = examples(training, 1, judge, seed)
    if not texts or not examples(held_out, 1, judge, seed=1)[0]:
        raise DataError(
            f"{len(lines)} captions: nothing ungrammatical can be made of the nine of ten to train on, or of the "
            "tenth to measure on; give more captions, of several different words each."
        )
    towers = load_towers(source)
    unique = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    features = towers.pooled_texts(list(unique)).cpu()[[unique[text] for text in texts]]
    head = fit(features, labels, steps, seed=seed)
    metrics = accuracy(head, towers, held_out, judge)
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().contiguous() for name, weight in head.state_dict().items()}
    save_file(weights, out / "head.safetensors", {"clip": towers.fingerprint})
    facts = {"clip": source.checkpoint or source.model, "captions": len(lines), "steps": steps, "seed": seed}
    facts |= {"commit": commit(), "held_out": metrics}
    (out / "provenance.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics))


def of_scenes(count: int, seed: int = 0) -> list[str]:
    """Captions of the train split, mixed: as many requests as fullest descriptions (fewer where they repeat)."""
    rng = np.random.default_rng([43, seed])
    descriptions = [sample_described(rng, "train")[1].text for _ in range(count)]
    lines = list(dict.fromkeys([request.text for request in distinct_requests("train", count)] + descriptions))
    return [lines[i] for i in rng.permutation(len(lines))]


def captions_in(file: str) -> list[str]:
    """The different lines of a file."""
    lines = (line.strip() for line in require_local(file).read_text(encoding="utf-8").splitlines())
    return [line for line in dict.fromkeys(lines) if line]


if __name__ == "__main__":
    reader = parser(__doc__)
    reader.add_argument("captions", nargs="?", help="a file, one caption a line")
    reader.add_argument("--scenes", type=int, default=0, help="so many captions of the miniworld in a file's place")
    reader.add_argument("--out", type=Path, required=True, help="a folder for the head; one that is there stays")
    for option in ("checkpoint", "model", "pretrained"):
        reader.add_argument(f"--{option}", default="")
    given = reader.parse_args()
    if bool(given.captions) == bool(given.scenes):
        reader.error("name a file of captions, or --scenes and how many (one of the two)")
    with errors_as_sentences():
        named = Source(given.checkpoint, given.model, given.pretrained)
        if (given.out / "head.safetensors").exists():
            raise ConfigError(f"--out {given.out}: already holds a head; name another folder, or remove it.")
        if given.scenes:
            main(of_scenes(given.scenes), named, given.out, in_scenes)
        else:
            main(captions_in(given.captions), named, given.out, lambda text: False)
