"""`mmalign features` on the embedded models: numbers that are known, and sentences for what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mmalign.cli.main import application
from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.types import Prompt
from mmalign.evaluation.geometry import uniformity
from mmalign.run.features import FeatureReader, feature_measures, feature_reader, features_of
from mmalign.run.judged_by import judged_by
from mmalign.run.labelled_rows import read_probed_rows
from mmalign.run.rows import read_output_rows

COLOURS, SHAPES = ("red", "blue", "green"), ("circle", "square", "star", "triangle")


def write(file: Path, outputs: list[tuple[str, dict[str, Any]]]) -> Path:
    lines = [json.dumps({"prompt": "draw", "output": text, "meta": meta, "group": text}) for text, meta in outputs]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [
        (f"{size}{colour} {shape}", {"colour": colour, "kind": shape})
        for size in ("a ", "a large ", "a small ")
        for colour in COLOURS
        for shape in SHAPES
    ]
    return write(tmp_path_factory.mktemp("features") / "rows.jsonl", made)


def test_the_command_measures_a_language_model(rows: Path, tmp_path: Path) -> None:
    red = [(f"two red {shape}s", {"colour": "red"}) for shape in SHAPES]
    other = write(tmp_path / "other.jsonl", [*red, *((f"three red {shape}s", {"colour": "red"}) for shape in SHAPES)])
    command = ["features", str(rows), "--with", "causal_lm", "--set", "model=assets/scenes_rewriter"]
    command += [
        "--alike",
        "colour",
        "--probe",
        "kind",
        "--against",
        str(other),
        "--out",
        str(tmp_path / "f.safetensors"),
    ]
    done = CliRunner().invoke(application(), [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    from safetensors.numpy import load_file

    features = load_file(tmp_path / "f.safetensors")["features"]
    assert found["uniformity"]["value"] == pytest.approx(uniformity(features), abs=1e-6) and len(features) == 36
    assert found["recall@1"]["value"] <= found["recall@10"]["value"] <= 1 and found["mrr"]["n"] == 36
    assert found["probe kind"]["value"] > 0.9 > found["probe kind"]["majority"] == 0.25
    assert found["changed"]["auroc"] >= 0.5 and len(found["changed"]["high"]) == 3
    assert not set(found["changed"]["high"]) & set(found["changed"]["low"])


def test_faults_are_sentences(rows: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--with nobody: is no encoder and no adapter; choose from .*clip.*reward_model"
    ):
        feature_reader("nobody", {})
    with pytest.raises(CapabilityError, match="--with sd3: this adapter has no features; choose from"):
        feature_reader("sd3", {})
    table = read_output_rows(rows)
    features = np.random.default_rng(0).normal(size=(len(table), 4))
    with pytest.raises(
        DataError, match=r"rows.jsonl:1: 'meta' has no 'size' \(36 of 36 rows\); its columns: colour, kind"
    ):
        feature_measures(features, table, alike="size")
    with pytest.raises(DataError, match="--probe colour: all rows have the value red; a probe needs two"):
        feature_measures(features[::12], [table[0]] * 3, probes=["colour"])
    blind = FeatureReader(frozenset({"image"}), lambda rollout: rollout.output)
    with pytest.raises(CapabilityError, match="this embeds image; the outputs are text"):
        features_of(table, blind, rows.parent)


def test_files_of_mrmbench_are_probed_by_their_dimension(tmp_path: Path) -> None:
    """A list of input, output and label in the dimension's folder; a language model's features know the colour."""
    folder = tmp_path / "mrm_easy" / "colour"
    folder.mkdir(parents=True)
    rows = [
        {"input": f"{shape} {size}", "output": f"{size} {colour} {shape}", "label": label}
        for size in ("a", "two", "a large", "a small")
        for label, colour in enumerate(COLOURS)
        for shape in SHAPES
    ]
    (folder / "test.json").write_text(json.dumps(rows))
    command = ["features", str(folder / "test.json"), "--with", "causal_lm", "--set", "model=assets/scenes_rewriter"]
    done = CliRunner().invoke(application(), [*command, "--probe", "colour", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["probe colour"]
    assert found["n"] == len(rows) and found["value"] > 0.8 > found["majority"] == pytest.approx(1 / 3)
    for fault, wanted in ({"label": "good"}, "expected the number of a class"), ({"input": 3}, "are texts"):
        (folder / "test.json").write_text(json.dumps([rows[0] | fault]))
        with pytest.raises(DataError, match=wanted):
            read_probed_rows(folder / "test.json")
    (folder / "test.json").write_text(json.dumps([{"prompt": "a", "output": "b"}]))
    with pytest.raises(DataError, match="as MRMBench has them; other rows stand in JSONL"):
        read_probed_rows(folder / "test.json")


def test_pairs_are_judged_by_the_nearest_dimension_of_the_others() -> None:
    """Against a loop that leaves each pair out by hand; the pairs without a dimension are named."""
    rng = np.random.default_rng(1)
    names = ["colour", "shape", "colour", "count", "shape", "colour", "", "count", None, "alone"]
    vectors = {f"{side} {at}": rng.normal(size=3) for side in "cr" for at in range(len(names))}
    rows = [
        Prompt("draw", meta={"chosen": [f"c {at}"], "rejected": [f"r {at}", "other"], "of": name}, place=f"f:{at}")
        for at, name in enumerate(names)
    ]
    reader = FeatureReader(
        frozenset({"text"}), lambda rollout: torch.tensor(np.stack([vectors[text] for text in rollout.output]))
    )
    found = judged_by(rows, reader, "of", batch=3)
    lead = {at: vectors[f"c {at}"] - vectors[f"r {at}"] for at in range(len(names))}

    def nearest(at: int) -> list[tuple[float, str]]:
        others: dict[str, list[Any]] = {}
        for other, name in enumerate(names):
            if name and other != at:
                others.setdefault(name, []).append(lead[other])
        return sorted((float(np.linalg.norm(lead[at] - np.mean(each, 0))), name) for name, each in others.items())

    right = [nearest(at)[0][1] == name for at, name in enumerate(names) if name]
    assert found["value"] == pytest.approx(np.mean(right)) and found["n"] == 8 and found["majority"] == 3 / 8
    assert 0 < sum(right) < 8, "a case in which some are right"
    for told, at in zip(found["named"], (6, 8), strict=True):
        (near, name), (second, _) = nearest(at)[:2]
        assert (told["place"], told["dimension"]) == (f"f:{at}", name)
        assert told["lead"] == pytest.approx(second / near - 1, abs=1e-5)
    with pytest.raises(DataError, match="--probe nothing: 0 dimensions in 10 pairs; two are needed"):
        judged_by(rows, reader, "nothing")


def test_the_command_tells_by_what_pairs_are_judged(tmp_path: Path) -> None:
    """Edits of a colour and of a shape, whose features differ in other directions."""
    pairs = [
        ("red circle", "blue circle", "colour"),
        ("red square", "green square", "colour"),
        ("blue star", "red star", "colour"),
        ("red circle", "red square", "shape"),
        ("blue square", "blue triangle", "shape"),
        ("green star", "green circle", "shape"),
        ("green triangle", "blue triangle", None),
    ]
    lines = [
        {"prompt": f"draw a {one}", "chosen": f"a {one}", "rejected": f"a {other}", "of": of}
        for one, other, of in pairs
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    command = ["features", str(file), "--with", "causal_lm", "--set", "model=assets/scenes_rewriter"]
    done = CliRunner().invoke(application(), [*command, "--probe", "of", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["judged by of"]
    assert found["n"] == 6 and [row["place"].rpartition(":")[2] for row in found["named"]] == ["7"]
    told = CliRunner().invoke(application(), [*command, "--probe", "of"])
    assert f"judged by: {found['named'][0]['dimension']} 1" in " ".join(told.output.split())
    wrong = CliRunner().invoke(application(), [*command, "--probe", "of", "--alike", "of"])
    assert wrong.exit_code and "holds comparisons; name the column" in " ".join(str(wrong.exception).split())
