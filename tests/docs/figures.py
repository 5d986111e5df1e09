"""The figures in the sentences of docs/results.md, made anew from the files and options that they come from."""

from __future__ import annotations

import inspect
import json
import math
import re
from typing import Any

from mmalign.core.config import load
from tests.benchmarks import language, overhead, trl_peer
from tests.docs.blocks import DOCS

ROOT = DOCS.parent
#: The files that sentences take figures from, by a short name.
MEASURED = {
    "untouched": "assets/results/selection/untouched.json",
    "truth_vendi": "assets/results/selection/truth_vendi.json",
    "set_selection": "assets/results/selection/set_selection.json",
    "r0": "assets/results/r0_clip.json",
    "dragon_vendi": "assets/results/dragon_vendi.json",
    "sound": "assets/results/music_rewards/vendi.json",
    "clip": "assets/scenes_clip/provenance.json",
    "judge": "assets/scenes_judge/provenance.json",
    "vlm": "assets/scenes_vlm/provenance.json",
    "clap": "assets/tunes_clap/provenance.json",
    "tunes": "assets/tunes_sa3/provenance.json",
    "overhead": "tests/benchmarks/results/overhead.json",
    "span_memory": "tests/benchmarks/results/span_memory.json",
    "trl_grpo": "tests/benchmarks/results/trl_grpo.json",
    "trl_dpo": "tests/benchmarks/results/trl_dpo.json",
    "trl_memory": "tests/benchmarks/results/trl_memory.json",
    "quantized": "tests/benchmarks/results/quantized.json",
}


def measured(name: str) -> dict[str, Any]:
    """The JSON of a short name."""
    content: dict[str, Any] = json.loads((ROOT / MEASURED[name]).read_text(encoding="utf-8"))
    return content


def rounded(value: float, digits: int = 0) -> str:
    """`value` with so many digits after the point, halves rounded up; thousands are set apart by commas."""
    return f"{math.floor(value * 10**digits + 0.5) / 10**digits:,.{digits}f}"


def percent(share: float) -> str:
    """A share as whole per cent."""
    return f"{rounded(round(100 * share, 6))} %"


def page_text() -> str:
    """The page's sentences, each on one line: no tables, no pictures, no headings, no targets of links."""
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("|", "<img", "#"))]
    return " ".join(re.sub(r"\]\([^)]*\)", "]", "\n".join(lines)).split())


def _row(name: str, role_or_name: str) -> dict[str, Any]:
    return next(row for row in measured(name)["mean"] if role_or_name in (row["role"], row["name"]))


def _untouched(of: str) -> dict[tuple[int, float], dict[str, Any]]:
    return {(row["steps"], row["guidance"]): row for row in measured("untouched")[of]}


def sentences() -> list[str]:
    """Every passage of the page that says a figure, as its file has it."""
    return [*pictures(), *sounds(), *costs(), *fewer_bits()]


def pictures() -> list[str]:
    """Those about pictures and texts."""
    plain, r0, vendi = _untouched("pictures"), _row("r0", "verifier"), measured("truth_vendi")["pictures"]
    clip, judge, vlm = (measured(name)["metrics"] for name in ("clip", "judge", "vlm"))
    seeds = sorted(row["after"] for run in measured("r0")["seeds"] for row in run["rows"] if row["name"] == "verifier")
    run = load(ROOT / "configs/scenes/r0_clip.yaml")
    quickstart = load(ROOT / "configs/quickstart/image.yaml")
    calls = 2 * 28 / run.policy["num_inference_steps"]  # guidance doubles each of 28 steps
    grammar = load(ROOT / "configs/scenes/hacked_clip_lagrangian.yaml").combine
    return [
        f"{r0['n']} held-out prompts, a CPU",
        f"GRPO on CLIP, {quickstart.trainer.steps} updates",
        f"With P(grammatical) held at {grammar['thresholds']['grammar']}",
        f"satisfies {percent(plain[8, 1.0]['mean'])} of these prompts at 8 steps, with guidance 3 "
        f"{percent(plain[8, 3.0]['mean'])} at 8 steps and {percent(plain[28, 3.0]['mean'])} at 28 (three seeds",
        f"R0 at four steps ({percent(r0['before'])} before) comes to {percent(r0['after'])} on average, the level of "
        f"{calls:.0f} times as many model calls; of its three seeds one stays below ("
        f"{', '.join(percent(share) for share in seeds)})",
        f"truth, {run.trainer.steps} updates, guidance as distillation",
        f"among 32 hard ones for {percent(clip['heldout_accuracy_of_32'])} of held-out and "
        f"{percent(clip['train_split_accuracy_of_32'])} of seen compositions, "
        f"{percent(clip['heldout_accuracy_of_32_after_autoencoder'])} after the autoencoder",
        f"The judge reaches {percent(judge['heldout_accuracy_of_32'])} (",
        f"more diverse (Vendi {rounded(_row('dragon_vendi', 'vendi')['before'], 1)}) than true pictures of the same "
        f"prompts ({rounded(min(vendi), 1)} to {rounded(max(vendi), 1)};",
        f"on {vlm['n']} held-out scenes its boxes reach a mean IoU of {rounded(vlm['box_iou'], 2)} ("
        f"{percent(vlm['box_iou_half'])} of them at least 0.5), its captions get {percent(vlm['caption_clauses'])} of "
        f"what can be said right, and of its yes/no answers {percent(vlm['judge'])} are right "
        f"({percent(vlm['judge_generated'])} about generated pictures;",
    ]


def sounds() -> list[str]:
    """Those about sound."""
    run = load(ROOT / "configs/quickstart/audio.yaml")
    plain, vendi, clap = _untouched("sounds"), measured("truth_vendi")["sounds"], measured("clap")["metrics"]
    noise = plain[8, 1.0]["seeds"]
    return [
        f"of {run.adapter['seconds']:.0f} s clips, {_row('sound', 'vendi')['n']} held-out prompts at "
        f"{run.policy['eval_steps']} steps without guidance, {run.trainer.steps} updates on a CPU",
        f"CLAP itself moves little in {run.trainer.steps} updates",
        f"above that of true sounds ({rounded(_row('sound', 'vendi')['before'], 1)} against "
        f"{rounded(min(vendi), 1)} to {rounded(max(vendi), 1)};",
        f"one of each two clips for {measured('set_selection')['n']} held-out prompts is chosen",
        f"The untouched generator satisfies {percent(plain[8, 1.0]['mean'])} of held-out prompts at 8 steps, with "
        f"guidance 3 {percent(plain[8, 3.0]['mean'])} ({percent(plain[28, 3.0]['mean'])} at 28 steps; means of three "
        f"seeds of noise, {percent(min(noise))[:-2]} to {percent(max(noise))} at 8 steps;",
        f"autoencoder keeps {percent(measured('tunes')['autoencoder']['metrics']['heldout_verified'])} of tunes right",
        f"among 32 hard ones for {percent(clap['train_split_accuracy_of_32'])} of seen and "
        f"{percent(clap['heldout_accuracy_of_32'])} of held-out compositions, "
        f"{percent(clap['heldout_accuracy_of_32_after_autoencoder'])} as the generator's autoencoder plays them",
    ]


def costs() -> list[str]:
    """Those about what the library costs, beside bare calls and beside TRL."""
    found = {n: measured(n)["found"] for n in ("overhead", "span_memory", "trl_grpo", "trl_dpo", "trl_memory")}
    ratio = {name: rounded(row["ratio"], 2) for name, row in found["overhead"].items()}
    mib = {name: [rounded(row["mib"][k]) for k in "248"] for name, row in found["span_memory"].items()}
    grpo, dpo, memory = found["trl_grpo"], found["trl_dpo"], found["trl_memory"]
    repeats = inspect.signature(overhead.measure).parameters["repeats"].default
    low, high = (rounded(bound, 1) for bound in grpo["range"])
    each, four = dpo["sixteen_prompts"], dpo["four_prompts"]
    pairs = len(language.preferences(trl_peer.QUESTION, 4))
    return [
        f"takes {ratio['grpo']} (GRPO), {ratio['dpo']} (DPO) and {ratio['r0']} (R0) times the same model calls made "
        f"bare (medians of {repeats} pairs;",
        f"{mib['spans_1'][0]}, {mib['spans_1'][1]} and {mib['spans_1'][2]} MiB at 2, 4 and 8 steps, against "
        f"{mib['whole'][0]}, {mib['whole'][1]} and {mib['whole'][2]} whole",
        f"Beside TRL {grpo['trl'].removesuffix('.0')} (a Qwen2 of 28 M weights, CPU, float32, {language.PROMPTS} "
        f"prompts of {grpo['prompt_tokens']} tokens × {language.GROUP} completions of {language.LENGTH}) a GRPO step "
        f"is {rounded(grpo['times_faster'], 1)} times as fast ({low} to {high} over {grpo['pairs']} pairs;",
        f"{percent(grpo['outside_model'])} of it are not model calls",
        f"A DPO step on {pairs} pairs is {rounded(each['times_faster'], 1)} times as fast "
        f"({rounded(each['range'][0], 1)} to {rounded(each['range'][1], 1)}), {rounded(four['times_faster'], 1)} times "
        "where the pairs share four prompts",
        f"A GRPO step needs {memory['grpo']['mmalign']['step_mib']:,} MiB beside what rests between steps, TRL's "
        f"{memory['grpo']['trl']['step_mib']:,}, that DPO step {memory['dpo']['mmalign']['step_mib']:,} against "
        f"{memory['dpo']['trl']['step_mib']:,} (",
    ]


def fewer_bits() -> list[str]:
    """Those about quantised bases."""
    text, image = (_quantized(measured("quantized")["found"][name]["nf4"]) for name in ("text", "image"))
    return [
        f"({text['before']} MB in float32, {text['layers']} of {text['linear']} frozen linear layers are quantised)",
        f"({image['before']} MB, {image['layers']} of {image['linear']})",
    ]


def fewer_bits_rows() -> list[str]:
    """The table of quantised bases, row by row."""
    found = measured("quantized")["found"]
    rows = []
    for bits, row in found["text"].items():
        cells = []
        for case in (found["text"], found["image"]):
            one = case[bits]
            size = _quantized(one)["after"] if one["said"] else _quantized(case["nf4"])["before"]
            rewards = ", ".join(rounded(next(iter(step.values())), 3) for step in one["reward"])
            cells.append(f"{size}; {rounded(one['grad_norm'][0], 2)}; {rewards}")
        differ = f"{rounded(float(_quantized(row)['error']), 1)} %" if row["said"] else "0"
        rows.append(f"| {bits} | {differ} | {cells[0]} | {cells[1]} |")
    return rows


def _quantized(row: dict[str, Any]) -> dict[str, str]:
    """What a run said of its quantised base: layers, megabytes and what the weights lost."""
    pattern = r": (\d+) of (\d+) frozen .* ([\d.]+) → ([\d.]+) MB; their weights differ by ([\d.]+)%"
    found = re.search(pattern, row["said"])
    if found is None:
        raise ValueError(row["said"])
    layers, linear, before, after, error = found.groups()
    return {
        "layers": layers,
        "linear": linear,
        "before": rounded(float(before), 2),
        "after": rounded(float(after), 2),
        "error": error,
    }
