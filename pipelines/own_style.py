"""From a folder of one's own to plain diffusers: a LoRA learns its style, GRPO goes on from it, the result is exported.

    python -m pipelines.own_style                            # 200 pictures whose things are all green; on a CPU
    python -m pipelines.own_style --sounds                   # 200 tunes that are all played by a bell
    python -m pipelines.own_style --seed 1 --out runs/second
    python -m pipelines.own_style --resume runs/own_style    # goes on after Ctrl-C

Captions say nothing of the style. The verifier asks for all of the caption *and* the style, of prompts that no caption
of the folder repeats. Five stages below the output folder: `folder` (what someone would bring), `sft`, `grpo` (from
that LoRA), `control` (from that LoRA too: as many more updates of imitation as GRPO makes) and `model` (GRPO's LoRA
merged, for plain diffusers), which is loaded in a fresh process without mmalign: from the same noise it must make what
the run makes. A change is `sft.KEY.PATH=VALUE`, or the same with `grpo` or `control`.
`summary.json` holds what the verifier said before and after each stage, with intervals.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmalign
from mmalign.core.config import is_change, load
from mmalign.core.errors import CheckError, ConfigError
from mmalign.core.files import write_beside
from pipelines._command_line import add_folder, change, parser

CONFIGS = Path(__file__).parents[1] / "configs" / "own_style"
OUT = Path("runs/own_style")
NAMES = {"image": "pictures", "audio": "sounds"}
STAGES = ("sft", "grpo", "control")
TOLERANCE = 2e-3  # of pictures in [0, 1] and sounds in [-1, 1]: merged weights round otherwise, eight steps long


def main(kind: str, changes: Sequence[str], out: Path, seed: int = 0) -> dict[str, Any]:
    """Run the stages that are not finished below `out`; returns what `summary.json` holds."""
    from mmalign.core.checkpoints import latest
    from mmalign.run.export import export_run
    from pipelines._own_style import write_folder
    from pipelines._stages import of_stage, stage

    require_stages(changes)
    folder = out / "folder"
    own, others = (folder.with_name(f"folder_{name}.jsonl") for name in ("own", "others"))
    if not others.is_file():
        if folder.exists():
            raise ConfigError(f"{folder}: is there, and its prompts are not; remove it, or name another --out.")
        own, others = write_folder(kind, folder, seed)
    measured = [change("evaluation.prompts", others.absolute()), change("trainer.seed", seed)]
    learn = [change("data.path", folder.absolute()), *measured, *of_stage(changes, "sft", STAGES)]
    sft = stage(load(CONFIGS / f"{NAMES[kind]}_sft.yaml", learn), out / "sft")
    lora = change("adapter.start_lora", (latest(sft / "checkpoints") / "adapter").absolute())
    align = [lora, change("data.path", own.absolute()), *measured, *of_stage(changes, "grpo", STAGES)]
    grpo = load(CONFIGS / f"{NAMES[kind]}_grpo.yaml", align)
    stage(grpo, out / "grpo")
    as_many = change("trainer.steps", grpo.trainer.steps * grpo.trainer.minibatches)
    more = [*learn, lora, as_many, *of_stage(changes, "control", STAGES)]
    stage(load(CONFIGS / f"{NAMES[kind]}_sft.yaml", more), out / "control")
    if not (out / "model").exists():
        export_run(out / "grpo", "merged", out / "model")
    summary = {"seed": seed, "verifier": measured_by(out), "plain_diffusers": compared(out, others)}
    with write_beside(out / "summary.json") as beside:
        beside.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def require_stages(changes: Sequence[str]) -> None:
    """Raise ConfigError for changes that are of no stage."""
    if odd := [word for word in changes if not word.startswith(tuple(f"{name}." for name in STAGES))]:
        raise ConfigError([f"{word}: begins with the stage that it is of ({', '.join(STAGES)})." for word in odd])


def measured_by(out: Path) -> dict[str, Any]:
    """What the verifier says before and after each stage, with 95 % intervals of the change."""
    stages = {name: json.loads((out / name / "summary.json").read_text())["rows"] for name in STAGES}
    fields = ("before", "after", "delta", "ci", "n")
    verified = {name: next(row for row in rows if row["name"] == "verifier") for name, rows in stages.items()}
    return {name: {field: row[field] for field in fields} for name, row in verified.items()}


def compared(out: Path, others: Path, count: int = 4) -> dict[str, Any]:
    """The largest difference of what the run and plain diffusers make from the same noise.

    Raises:
        CheckError: it is beyond `TOLERANCE`.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from mmalign.core.rng import randn, stream

    prompts = [json.loads(line)["prompt"] for line in others.read_text().splitlines()[:count]]
    trained = mmalign.load_run(out / "grpo")
    made = trained.generate(prompts, seed=7).output
    ours = made if isinstance(made, torch.Tensor) else made.samples
    adapter: Any = trained.parts.adapter
    noise = randn((count, *adapter.latent_shape), [stream(7, "generate", row) for row in range(count)])
    save_file({"latents": noise}, out / "noise.safetensors")
    job = {
        "model": str(out / "model"),
        "prompts": prompts,
        "latents": str(out / "noise.safetensors"),
        "output": str(out / "plain.safetensors"),
        "pipeline": adapter.pipeline_name,
        "components": dict.fromkeys(adapter.absent()),
        "call": called_with(trained),
    }
    (out / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("_plain_diffusers.py")
    done = subprocess.run([sys.executable, script, out / "job.json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"plain diffusers could not use {out / 'model'}: {done.stderr.strip()[-2000:]}")
    theirs = load_file(out / "plain.safetensors")["output"]
    difference = float((ours - theirs[..., : ours.shape[-1]]).abs().max())
    if difference > TOLERANCE:
        raise CheckError(f"plain diffusers makes other outputs of {out / 'model'}: they differ by {difference:g}.")
    return {"prompts": prompts, "largest_difference": difference}


def called_with(trained: Any) -> dict[str, Any]:
    """What the plain pipeline is called with to sample as the run is measured."""
    policy, adapter = trained.parts.policy, trained.parts.adapter
    scale = policy.guidance_scale if policy.eval_guidance_scale is None else policy.eval_guidance_scale
    call = {"num_inference_steps": policy.eval_steps or policy.num_inference_steps, "guidance_scale": scale or 1.0}
    if adapter.modality == "image":
        return call | {"max_sequence_length": adapter.max_sequence_length}
    low, high = adapter.logsnr
    return call | {"duration": adapter.seconds, "logsnr_min": low, "logsnr_max": high}


def read(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    reader = parser(__doc__)
    reader.add_argument("changes", nargs="*", metavar="STAGE.KEY.PATH=VALUE")
    reader.add_argument("--sounds", action="store_true", help="tunes instead of pictures")
    reader.add_argument("--seed", type=int, default=0, help="of the folder and of both runs")
    add_folder(reader, OUT)
    args = reader.parse_intermixed_args(words)
    if odd := [word for word in args.changes if not is_change(word)]:
        reader.error(f"{odd[0]}: no change of a run file, as sft.trainer.steps=20 is")
    if args.resume and args.out:
        reader.error(f"--out {args.out}: a resumed run goes on in its own folder; leave it away")
    return args


if __name__ == "__main__":
    given = read()
    with mmalign.errors_as_sentences():
        place = given.resume or given.out or OUT
        if given.resume is None and place.exists():
            raise ConfigError(f"{place}: is there already; go on with --resume {place}, or name another --out.")
        main("audio" if given.sounds else "image", given.changes, place, given.seed)
        print(f"summary        {place / 'summary.json'}\nmodel          {place / 'model'}")
