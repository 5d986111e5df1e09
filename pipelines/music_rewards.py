"""One run file, many targets: every reward of sound in turn trains the embedded generator, and is counted for its wins.

    python -m pipelines.music_rewards                        # all targets, one seed
    python -m pipelines.music_rewards clap fad_chimes --seeds 0 1 2
    python -m pipelines.music_rewards --table                # print what is committed

As in DRAGON (2504.15217: 20 rewards, mean win rate 81.45 %), a target's win rate is measured on that target and on
held-out prompts: the share of prompts whose sound scores higher, and for the reward of a set the share of resamples of
the prompts in which the set does. The verifier says on every row what became of what was asked for.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from mmalign import errors_as_sentences
from pipelines._command_line import parser
from pipelines.results import RESULTS, across_seeds, keep, planned, run_seed

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "audio.yaml"
FOLDER = RESULTS / "music_rewards"
_CLAP = "{name: clap, checkpoint: assets/tunes_clap}"
_PAIRS = "assets/exemplars/mixed/rows.jsonl"


def _fad(reference: str, more: str = "") -> str:
    return f"rewards.target={{name: fad, reference: {reference}{more}}}"


def _song_fad(style: str) -> list[str]:
    return [f"rewards.target={{name: song_fad, reference: {_statistics(style, 'frames')}}}", _ROWS, *_GENTLE]


def _statistics(style: str, encoder: str) -> str:
    return f"assets/reference/tunes_{style}_{encoder}.safetensors"


#: Rewards of single sounds: in DRAGON the better of two outputs of a prompt.
_ROWS = "objective.builder=pair"
#: Of latents and spectra: at a β of 0.1 and a rate that stays, what was rejected was driven off without end.
_STEADY = ["objective.beta=0.5", "trainer.lr_end=0.1"]
#: Where 1e-4 passed the best set at update 20 and went on.
_GENTLE = [*_STEADY, "trainer.lr=4.0e-5"]
_GRPO = [
    "policy={name: flow, sde: cps, noise_level: 0.6, num_inference_steps: 8, window: first, window_size: 3, "
    "same_noise: true, eval_steps: 8}",
    "objective={name: grpo, group_size: 16}",
    "trainer.prompts_per_step=8",
]
_R0 = [
    "policy={name: few_step, num_inference_steps: 8, eta: 0, eval_steps: 8, grad_steps: 4}",
    "objective={name: r0, weight_decay_to_start: 1.0e-3}",
    # A gradient of unit length settles only at a low and falling rate: at 1e-4 the reward fell from update 12 on.
    "trainer.lr=2.0e-5",
    "trainer.lr_end=0.05",
]
#: Half a batch is another set, whose distance has another gradient; and half of the steps see half of where it leads.
_WHOLE = ["trainer.prompts_per_step=96", "trainer.minibatches=1", "policy.grad_steps=8"]
#: R0's reward of the frozen start with guidance beside the CLAP's own, as for the scenes.
_GUIDED = ["policy.guide_scale=3", "objective.guidance_weight=1.0", "trainer.lr=4.0e-5"]
#: Of a wide β: at 0.1 what was rejected was driven off here, too.
_DPO = [
    "objective={name: dpo, online: best_worst, group_size: 4, beta: 0.5, draws: 4}",
    "trainer.prompts_per_step=24",
    "trainer.lr=5.0e-5",
    "trainer.lr_end=0.1",
]
_CLAP_REWARD = f"rewards.target={_CLAP}"

#: What changes in the run file, by target.
TARGETS: dict[str, list[str]] = {
    "fad_chimes": [],
    "fad_jig": [_fad(_statistics("jig", "clap"))],
    "latent_fad_chimes": [_fad(_statistics("chimes", "latents")), *_GENTLE],
    "latent_fad_jig": [_fad(_statistics("jig", "latents")), *_GENTLE],
    "song_fad_chimes": _song_fad("chimes"),
    "song_fad_jig": _song_fad("jig"),
    "spectral_fad_jig": [_fad(_statistics("jig", "spectral")), *_STEADY],
    "text_fad_chimes": [_fad("assets/exemplars/chimes.txt", f", encoder: {_CLAP}, pairs: {_PAIRS}, least_rows: 6")],
    "text_fad_jig": [_fad("assets/exemplars/jig.txt", f", encoder: {_CLAP}, pairs: {_PAIRS}, least_rows: 6")],
    "kad_chimes": [f"rewards.target={{name: kad, reference: {_statistics('chimes', 'clap')}}}"],
    "vendi": [f"rewards.target={{name: vendi, encoder: {_CLAP}}}", *_GENTLE],
    "clap": [_CLAP_REWARD, _ROWS],
    "clap_grpo": [_CLAP_REWARD, *_GRPO],
    "clap_dpo": [_CLAP_REWARD, *_DPO],
    "clap_r0": [_CLAP_REWARD, *_R0, *_GUIDED],
    "fad_chimes_grpo": _GRPO,
    "fad_chimes_r0": [*_R0, *_WHOLE],
}


def measure(name: str, seeds: list[int], runs: Path) -> dict[str, Any]:
    """Train towards one target with every seed; one that has finished in its folder already is read, not run again."""
    results = [run_seed(CONFIG, seed, TARGETS[name], runs / f"{name}-{seed}") for seed in seeds]
    words = ["python -m pipelines.music_rewards", name, "--seeds", *map(str, seeds)]
    return {"command": " ".join(words), "changes": TARGETS[name], "mean": across_seeds(results), "seeds": results}


def table() -> str:
    """Every committed target as Markdown, and their mean win rate."""
    lines = ["| target | before → after | wins | CLAP | Vendi | verifier |", "|---|---|---|---|---|---|"]
    wins = []
    for path in sorted(FOLDER.glob("*.json")):
        rows = {row["name"]: row for row in json.loads(path.read_text())["mean"]}
        target = rows["target"]
        rates = target["win_rate_by_seed"]
        wins.append(statistics.fmean(rates))
        percentages = "; ".join(f"{rate:.0%}" for rate in rates)
        others = (f"{rows[name]['before']:.3f} → {rows[name]['after']:.3f}" for name in ("clap", "vendi", "verifier"))
        cells = (
            f"[{path.stem}](assets/results/music_rewards/{path.name})",
            f"{target['before']:.3f} → {target['after']:.3f}",
            f"**{wins[-1]:.0%}**" + (f" ({percentages})" if len(rates) > 1 else ""),
            *others,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [*lines, *([f"| mean of {len(wins)} | | **{statistics.fmean(wins):.1%}** | | | |"] if wins else [])]
    )


def main() -> None:
    """Run targets and write one JSON each; print the table of all that are committed."""
    reader = parser(__doc__)
    reader.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all by default")
    reader.add_argument("--seeds", type=int, nargs="+", default=[0])
    reader.add_argument("--runs", type=Path, default=Path("runs/results/music_rewards"))
    reader.add_argument("--table", action="store_true", help="train nothing")
    args = reader.parse_intermixed_args()
    if unknown := [name for name in args.targets if name not in TARGETS]:
        reader.error(f"no target is called {', '.join(unknown)}; there is {', '.join(TARGETS)}")
    names, seeds = [] if args.table else args.targets or list(TARGETS), list(dict.fromkeys(args.seeds))
    with errors_as_sentences():
        for name in names:  # all before the first of them trains
            for seed in seeds:
                planned(CONFIG, seed, TARGETS[name], args.runs / f"{name}-{seed}")
        for name in names:
            keep(FOLDER / f"{name}.json", measure(name, seeds, args.runs))
        print(table())


if __name__ == "__main__":
    main()
