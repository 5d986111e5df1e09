"""What fewer bits of the frozen base cost: three updates of a language model and of a picture generator with each.

Beside float32, from the same seed: at the start the largest |ratio - 1| and the KL to the reference, which is the base
in the same bits; gradient norms and rewards of three updates; the bytes of the trained network.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "text": ("quickstart/text/rewriter", ["adapter.train=lora", "adapter.lora.rank=8", "trainer.lr=1e-3"]),
    "image": (
        "scenes/grpo_verifier",
        ["adapter.train=lora", "adapter.lora.rank=8", "trainer.lr=1e-3", "trainer.minibatches=1"],
    ),
}
SHORT = [
    *("trainer.steps=3", "trainer.prompts_per_step=4", "trainer.evaluate_every=0", "trainer.preview_every=0"),
    *("evaluation.count=4", "trainer.schedule=constant"),
]
BITS = ("none", "nf4", "int8", "fp8")


def measure() -> dict[str, Any]:
    """The numbers by case and `quantize`."""
    return {name: {bits: _one(file, [*more, *SHORT], bits) for bits in BITS} for name, (file, more) in CASES.items()}


def _one(file: str, changes: list[str], bits: str) -> dict[str, Any]:
    import mmalign

    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("mmalign")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            mmalign.train(ROOT / "configs" / f"{file}.yaml", [*changes, f"adapter.quantize={bits}"], out=out)
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    finally:
        log.removeHandler(handler)
    steps = [line for line in lines if "lr" in line]
    found: dict[str, Any] = {
        "start": {name: steps[0][name] for name in ("ratio/mean", "ratio/max", "kl/reference") if name in steps[0]},
        "grad_norm": [line["grad/norm"] for line in steps if "grad/norm" in line],
        "reward": [{k: v for k, v in line.items() if k.startswith("reward/") and k.count("/") == 1} for line in steps],
    }
    return found | {"said": next((text for text in told if text.startswith("quantize: ")), "")}
