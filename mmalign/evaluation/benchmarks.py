"""Files of reward benchmarks as the rows that `judging` reads: told apart by their columns.

| benchmark | columns it is told by | what becomes of them |
|---|---|---|
| RewardBench 1 and 2 (2403.13787, 2506.01937), files of one's own | prompt, chosen, rejected | as they are |
| RAG-RewardBench (2412.13746) | prompt, question, chosen, reject | the question is put behind the prompt |
| MM-RLHF-RewardBench (2502.10391) | chosen_reason, rejected_reason | sample: id; subset: the kind in the path |
| Multimodal RewardBench (2502.14191) | Text, Output1, Output2, Better | subset: Category |
| VL-RewardBench (2411.17451) | query, response, human_ranking | rank 0 is the better; subset: query_source |
| RABench (2506.03637) | principle, prompt, responses, scores | see below |

Layouts were read off the benchmarks' public evaluation code and cards, that of RAG-RewardBench off code that reads it.
RABench's own columns were found in no public text: the names are those of its authors' public interface, where
`responses` are {name: text} and `scores` {name: number} (lists of equal length do as well); `--column` renames others.
The principle is put before the prompt, and stays a column. Of a row come as many comparisons as there are scores but
the lowest: its outputs are better than all below. They are one `sample`, so that acc_plus is the whole ranking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from mmalign.core.errors import DataError, shown

__all__ = ["LAYOUTS", "as_comparisons", "layout_of"]

Row = Mapping[str, Any]
_KINDS = ("mcq", "long", "short", "safety", "video")  # of MM-RLHF-RewardBench, in the path of a row's picture


def _plain(row: Row) -> dict[str, Any]:
    return dict(row)


def _rag(row: Row) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in ("prompt", "question", "reject")}
    prompt, question = str(row["prompt"]).strip(), str(row["question"]).strip()
    text = prompt if question in prompt else f"{prompt}\n\n{question}"
    return kept | {"prompt": text, "rejected": row["reject"]}


def _mm_rlhf(row: Row) -> dict[str, Any]:
    about = str(row.get("image") or row.get("video") or "")
    kind = next((kind for kind in _KINDS if kind in about), "")
    return dict(row) | {"sample": row.get("id"), "subset": row.get("subset") or kind}


def _multimodal(row: Row) -> dict[str, Any]:
    if row["Better"] not in ("Output1", "Output2"):
        raise DataError(f"'Better' is {shown(row['Better'])}; expected Output1 or Output2.")
    worse = "Output1" if row["Better"] == "Output2" else "Output2"
    own = {"prompt": row["Text"], "chosen": row[row["Better"]], "rejected": row[worse]}
    return own | {"image": row.get("Image"), "subset": row.get("Category") or "", "id": row.get("ID")}


def _vl(row: Row) -> dict[str, Any]:
    ranks = [int(rank) for rank in row["human_ranking"]]
    if sorted(ranks) != [0, 1] or len(row["response"]) != 2:
        raise DataError(
            f"'human_ranking' is {shown(row['human_ranking'])}; expected the ranks 0 and 1 of two responses."
        )
    chosen, rejected = (row["response"][ranks.index(place)] for place in (0, 1))
    kept = {name: row[name] for name in ("id", "image") if name in row}
    return kept | {
        "prompt": row["query"],
        "chosen": chosen,
        "rejected": rejected,
        "subset": row.get("query_source") or "",
    }


def _ranked(row: Row) -> list[dict[str, Any]]:
    responses, scores = _by_name(row, "responses", str), _by_name(row, "scores", (int, float))
    if sorted(responses) != sorted(scores) or len(set(scores.values())) < 2:
        wanted = f"a number for each of {len(responses)} responses, and two that differ"
        raise DataError(f"'scores' is {shown(row['scores'])}; expected {wanted}.")
    kept = {name: value for name, value in row.items() if name not in ("responses", "scores")}
    kept |= {"prompt": f"{str(row['principle']).strip()}\n\n{row['prompt']}"}
    kept |= {"sample": row.get("sample") or row.get("id") or kept["prompt"]}
    rows = []
    for level in sorted(set(scores.values()), reverse=True)[:-1]:
        sides = {
            "chosen": [responses[name] for name, score in scores.items() if score == level],
            "rejected": [responses[name] for name, score in scores.items() if score < level],
        }
        rows.append(kept | sides)
    return rows


def _by_name(row: Row, column: str, kind: type | tuple[type, ...]) -> dict[str, Any]:
    value = row[column]
    if isinstance(value, str):  # of a CSV file
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"'{column}' is {shown(value)}; expected {{name: value}}, or a list, as JSON.") from None
    listed = value if isinstance(value, list | tuple) else []
    named = dict(value) if isinstance(value, Mapping) else {str(i): one for i, one in enumerate(listed)}
    named = {str(name): one for name, one in named.items() if one is not None}
    if len(named) < 2 or not all(isinstance(one, kind) and not isinstance(one, bool) for one in named.values()):
        raise DataError(f"'{column}' is {shown(row[column])}; expected {{name: value}}, or a list, of two at least.")
    return named


#: By name: the columns that a file is told by, and what makes a comparison of a row. The first that fits is taken.
LAYOUTS: dict[str, tuple[frozenset[str], Callable[[Row], dict[str, Any] | list[dict[str, Any]]]]] = {
    "RABench": (frozenset({"principle", "prompt", "responses", "scores"}), _ranked),
    "VL-RewardBench": (frozenset({"query", "response", "human_ranking"}), _vl),
    "Multimodal RewardBench": (frozenset({"Text", "Output1", "Output2", "Better"}), _multimodal),
    "RAG-RewardBench": (frozenset({"prompt", "question", "chosen", "reject"}), _rag),
    "MM-RLHF-RewardBench": (frozenset({"prompt", "chosen", "rejected", "chosen_reason", "rejected_reason"}), _mm_rlhf),
    "pairs": (frozenset({"prompt", "chosen", "rejected"}), _plain),
}


def layout_of(columns: list[str], file: str) -> str:
    """The benchmark that a file of these columns is of.

    Raises:
        DataError: none that is known.
    """
    for name, (needs, _) in LAYOUTS.items():
        if needs <= set(columns):
            return name
    known = "; ".join(f"{name}: {', '.join(sorted(needs))}" for name, (needs, _) in LAYOUTS.items())
    raise DataError(f"{file}: has the columns {', '.join(columns)}, of no benchmark that is known ({known}).")


def as_comparisons(layout: str, row: Row, place: str) -> list[dict[str, Any]]:
    """A row as prompt, chosen, rejected and facts about it; a ranking is several.

    Raises:
        DataError: a value that the layout cannot hold, with the place.
    """
    try:
        made = LAYOUTS[layout][1](row)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    return made if isinstance(made, list) else [made]
