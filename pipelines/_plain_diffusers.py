"""What plain diffusers makes of an exported model from given noise: nothing of mmalign is imported here.

    python pipelines/_plain_diffusers.py JOB.json

The job names the model's folder, the pipeline's class and what it is called with, a safetensors file with `latents`,
and one to write `output` to.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import load_file, save_file


def main(job: dict) -> None:
    """Load, generate, write."""
    kind = getattr(diffusers, job["pipeline"])
    pipe = kind.from_pretrained(job["model"], torch_dtype=torch.float32, local_files_only=True, **job["components"])
    if "stochastic_sampling" in pipe.scheduler.config:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, stochastic_sampling=False)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(job["prompts"], latents=load_file(job["latents"])["latents"], output_type="pt", **job["call"])[0]
    save_file({"output": made.float().contiguous()}, job["output"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
