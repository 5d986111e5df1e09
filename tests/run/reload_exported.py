"""A fresh process that knows nothing of mmalign: loads what was exported by plain libraries, and computes with it.

python reload_exported.py JOBS.pt ANSWERS.pt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch


def network(job: dict[str, Any]) -> Any:
    """The network of a job, as its form is loaded by who has never seen a run of ours."""
    import diffusers
    import transformers
    from peft import PeftModel

    form, path = job["form"], Path(job["path"])
    if job["component"]:
        kind = getattr(diffusers, job["kind"])
        pipe = kind.from_pretrained(path if form == "merged" else job["base"], **job["more"])
        if form in ("diffusers", "kohya", "comfyui"):
            pipe.load_lora_weights(path)
        part = getattr(pipe, job["component"])
        return PeftModel.from_pretrained(part, path) if form == "peft" else part
    kind = getattr(transformers, job["kind"])
    model = kind.from_pretrained(path if form == "merged" else job["base"], **job["more"])
    return PeftModel.from_pretrained(model, path) if form == "peft" else model


@torch.no_grad()
def main() -> None:
    """Answer every job."""
    answers = []
    for job in torch.load(sys.argv[1], weights_only=True):
        out = network(job).eval()(*job["args"], **job["kwargs"])
        answers.append(out[0] if isinstance(out, tuple) else out.get("logits", out.get("sample", None)))
    assert "mmalign" not in sys.modules
    torch.save(answers, sys.argv[2])


if __name__ == "__main__":
    main()
