"""A process of its own that compares one answer after another with the right one.

It is started as a script, so it imports no mmalign.

In: a JSON line {gold: [LaTeX, …], said: LaTeX or prose, prose: bool, memory: MiB, seconds}. Out: a JSON line, {"equal":
bool} or {"fault", "why"} with fault `gold` (its number stands in `which`), `said` (no mathematics) or `limit`.
`math_verify`'s own time limits are off: they need signals, and the parent kills this process.
"""

import json
import logging
import sys
from typing import Any


def _limit(memory: int, seconds: float) -> None:
    """The system's own limits, in case this process is left alone."""
    try:
        import resource
    except ImportError:  # Windows
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + 2 * seconds) + 2, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory << 20, hard))


def _parsed(text: str, prose: bool) -> list[Any]:
    """What the library makes of a text: one expression, or [] where it finds none; never a bare string."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # As in TRL's `accuracy_reward`: LaTeX alone, a box first, nothing without words such as "the answer is".
    config = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True), boxed_match_priority=0, try_extract_without_anchor=False
    )
    wrapped = text if prose else f"\\boxed{{{text}}}"
    return parse(wrapped, [config], "no_fallback", "first_match", parsing_timeout=None)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from math_verify import verify

    _limit(request["memory"], request["seconds"])
    golds = [_parsed(text, False) for text in request["gold"]]
    if [] in golds:
        return {"fault": "gold", "which": golds.index([]), "why": "is no mathematics that math-verify reads"}
    if request["said"] is None:
        return {"equal": True}
    if not (answer := _parsed(request["said"], request["prose"])):
        return {"fault": "said", "why": "no mathematics that math-verify reads"}
    return {"equal": any(verify(gold, answer, timeout_seconds=None) for gold in golds)}


def main() -> None:
    """Answer until the input ends."""
    sys.set_int_max_str_digits(4300)
    logging.disable(logging.CRITICAL)  # its warnings that time limits are off
    import math_verify  # noqa: F401  # before the first row's clock

    sys.stdout.write("\n")
    sys.stdout.flush()
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line))
        except (MemoryError, RecursionError) as error:
            answer = {"fault": "limit", "why": type(error).__name__}
        except Exception as error:
            answer = {"fault": "said", "why": f"{type(error).__name__}: {str(error)[:200]}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
