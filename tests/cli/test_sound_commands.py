"""Scoring folders of sound, and reference files: as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, DataError
from mmalign.media.audio import write_audio
from tests.rewards.sounds import RATE, tones, write_tones
from tests.typecheck import unchecked


def test_a_folder_of_sounds_is_scored_as_a_set(call: Any, tmp_path: Path) -> None:
    songs, style = write_tones(tmp_path / "songs", 6), write_tones(tmp_path / "style", 5, seed=40)
    for reward, options in (("fad", [style]), ("kad", [style]), ("vendi", [])):
        named = [f"reference={place}" for place in options] + ["encoder.name=spectral", "encoder.bands=4"]
        code, out, err = call("score", songs, "--reward", reward, *(w for o in named for w in ("--set", o)))
        assert code == 0, err
        line = json.loads(out)
        assert (
            line["n"] == 6
            and line["encoder"] == "spectral"
            and len(line["credit"]) == 6
            and abs(sum(line["credit"])) < 1e-6
        )
        assert line["outputs"] == sorted(file.name for file in songs.iterdir())
    heard = ("--set", "encoder.name=spectral", "--set", "encoder.bands=4")
    same = json.loads(call("score", style, "--reward", "fad", "--set", f"reference={style}", *heard)[1])
    assert abs(same["value"]) < 1e-6


def test_rows_and_folders_of_sounds_get_one_line_each(call: Any, tmp_path: Path) -> None:
    songs = write_tones(tmp_path / "songs", 3)
    (songs / "1.txt").write_text("a red circle")
    code, out, err = call("score", songs, "--reward", "clipping")
    assert code == 0, err
    named: list[dict[str, Any]] = [
        {"output": name, "value": 0.0, "status": "ok", "parts": {}} for name in ("0.wav", "1.flac", "2.wav")
    ]
    assert [json.loads(line) for line in out.splitlines()] == named
    from mmalign.run.rows import read_output_rows

    assert [row.prompt.text for row in read_output_rows(songs)] == ["", "a red circle", ""]
    rows = tmp_path / "rows.jsonl"
    lines = [{"prompt": "a", "output": f"songs/{name}", "meta": {"seconds": 0.4}} for name in ("0.wav", "1.flac")]
    rows.write_text("\n".join(map(json.dumps, lines)))
    heard = tmp_path / "captions.jsonl"  # texts about sounds
    heard.write_text(json.dumps({"prompt": "what?", "output": "a tone", "audio": "songs/0.wav"}))
    assert read_output_rows(heard)[0].prompt.media["audio"].rate == RATE
    code, out, _ = call("score", rows, "--reward", "duration")
    assert code == 0 and [json.loads(line)["status"] for line in out.splitlines()] == ["ok", "ok"]


def test_bad_sounds_and_folders_are_named(call: Any, tmp_path: Path) -> None:
    songs, out = write_tones(tmp_path / "songs", 3), tmp_path / "out.jsonl"
    (songs / "1.flac").write_bytes((songs / "1.flac").read_bytes()[:900])
    code, _, err = call("score", songs, "--reward", "clipping", "--out", out)
    assert code == 1 and "note: 1 of 3 rows could not be scored" in err and "1.flac" in err and "Traceback" not in err
    assert [json.loads(line)["status"] for line in out.read_text().splitlines()] == ["ok", "error", "ok"]
    out.unlink()
    (tmp_path / "bare").mkdir()
    code, _, err = call("score", tmp_path / "bare", "--reward", "clipping")
    assert code == 2 and "bare: no pictures or sounds in it." in err
    code, _, err = call("score", songs, "--reward", "sharpness")
    assert code == 2 and "this reward judges image; the outputs are audio" in err


def test_a_row_that_does_not_embed_leaves_the_set_and_has_no_credit() -> None:
    from mmalign.rewards import load_reward
    from mmalign.rewards.engine.sets import Embedded
    from mmalign.run.score import _set_line

    embedding = torch.randn(5, 4)
    embedding[2] = float("nan")
    line = _set_line(Embedded(embedding), load_reward("vendi", encoder={"name": "spectral"}))
    assert line["n"] == 4 and line["credit"][2] is None and line["value"] > 1


def test_a_set_too_small_for_credit_has_its_value_and_one_too_small_for_that_is_refused(
    call: Any, tmp_path: Path
) -> None:
    songs, style = write_tones(tmp_path / "songs", 1), write_tones(tmp_path / "style", 3, seed=40)
    code, out, err = call("score", songs, "--reward", "vendi", "--set", "encoder.name=spectral")
    assert code == 0, err
    info = "no credit: credit needs at least 2 rows, got 1"
    line = json.loads(out)
    assert line.pop("value") == pytest.approx(1.0)
    assert line == {"n": 1, "credit": [None], "info": info, "encoder": "spectral", "outputs": ["0.wav"]}
    heard = ("--set", "encoder.name=spectral", "--set", "encoder.bands=3")
    for reward, why in (("fad", "the evaluated set needs at least 2 rows"), ("kad", "MMD needs at least 2 rows")):
        code, _, err = call("score", songs, "--reward", reward, "--set", f"reference={style}", *heard)
        assert code == 2 and f"a set of 1 outputs cannot be scored: {why}" in err and "Traceback" not in err
    write_tones(tmp_path / "two", 2)
    words = ("--reward", "fad", "--set", f"reference={style}", "--set", "credit_by=leave_one_out", *heard)
    code, out, err = call("score", tmp_path / "two", *words)
    line = json.loads(out)
    assert code == 0 and line["value"] < 0 and line["credit"] == [None, None], err
    assert line["info"].startswith("no credit: leaving one out needs at least 3 rows, got 2")


def test_a_set_of_which_nothing_embeds_is_refused() -> None:
    from mmalign.rewards import load_reward
    from mmalign.rewards.engine.sets import Embedded
    from mmalign.run.score import _set_line

    vendi, embedding = load_reward("vendi", encoder={"name": "spectral"}), torch.full((5, 4), float("nan"))
    with pytest.raises(DataError, match="none of the 5 outputs can be embedded"):
        _set_line(Embedded(embedding), vendi)
    embedding[0] = 0.0
    with pytest.raises(DataError, match=r"a set of 1 outputs \(4 more cannot be embedded\) cannot be scored: row 0"):
        _set_line(Embedded(embedding), vendi)


def test_reference_files_hold_their_encoder_and_are_refused_by_others(call: Any, tmp_path: Path) -> None:
    songs, out = write_tones(tmp_path / "songs", 4), tmp_path / "style.safetensors"
    code, said, err = call("reference", songs, "--out", out, "--encoder", "spectral", "--set", "bands=4")
    assert code == 0, err
    assert said.startswith("4 rows of") and " in spectral: " in said
    code, said, err = call("score", songs, "--reward", "fad", "--set", f"reference={out}")
    assert code == 0 and abs(json.loads(said)["value"]) < 1e-6, err  # its own encoder, without being named
    code, _, err = call(
        "score", songs, "--reward", "fad", "--set", f"reference={out}", "--set", "encoder.name=spectral"
    )
    assert code == 2 and "distances between different embeddings mean nothing" in err
    code, _, err = call("reference", songs, "--out", out, "--encoder", "spectral", "--unit", "frame")
    assert code == 0, err
    code, said, err = call("score", songs, "--reward", "song_fad", "--set", f"reference={out}")
    assert code == 0 and len(said.splitlines()) == 4, err


def test_faults_of_reference_exit_2(call: Any, tmp_path: Path) -> None:
    songs = write_tones(tmp_path / "songs", 2)
    code, _, err = call("reference", songs, "--out", tmp_path / "x.npz")
    assert code == 2 and "statistics are a .safetensors file" in err
    code, _, err = call("reference", songs, "--out", tmp_path / "x.safetensors", "--set", "bands=8")
    assert code == 2 and "--set: options belong to an --encoder; known: clap, clip" in err
    code, _, err = call("reference", songs, "--out", tmp_path / "x.safetensors")
    assert code == 2 and "encoder: missing. Name what embeds" in err and "`clap` (audio, text): unit features" in err
    code, _, err = call("reference", tmp_path / "gone", "--out", tmp_path / "x.safetensors", "--encoder", "spectral")
    assert code == 2 and "no such file or folder" in err
    assert not (tmp_path / "x.safetensors").exists()


def test_latents_come_from_any_generators_own_autoencoder(tmp_path: Path) -> None:
    """`--adapter`: a folder of sounds becomes latents through `adapter.latents`, as a rollout would carry them."""
    from mmalign.rewards.encoders import make_encoder
    from mmalign.rewards.reference_sets.statistics import load_reference
    from mmalign.run.latent_encoder import LatentEncoder

    class Halves:
        modality = "audio"

        def load(self) -> None:
            pass

        def latents(self, output: Any) -> torch.Tensor:
            return output.samples[..., :400].mean(1).reshape(len(output), 4, 100)

    encoder: Any = make_encoder({"name": "latents", "space": "halves"})
    halves: Any = Halves()
    folder = tmp_path / "songs"
    for row in range(3):
        write_audio(tones(3).output.samples[row], RATE, folder / f"{row}.wav")
    silent: Any = type("object", (), {"modality": "image"})()
    with unchecked():  # a generator is only what is asked of it
        found = load_reference(str(folder), LatentEncoder(encoder, halves))
        assert found.rows is not None and found.rows.shape == (3, 8)
        assert load_reference(str(folder), LatentEncoder(encoder, halves), "frame").gaussian.count == 300
        with pytest.raises(CapabilityError, match="--adapter: a object turns no sound into latents"):
            LatentEncoder(encoder, silent)


def test_references_are_sounds_by_content_and_what_is_skipped_is_counted(
    call: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.media import odd

    songs = tmp_path / "songs"
    (songs / "more").mkdir(parents=True)
    for name, kind in (("a.opus", "OGG"), ("b.oga", "OGG"), ("c.aiff", "AIFF"), ("d.dat", "FLAC")):
        more: dict[str, Any] = {"subtype": "OPUS"} if name == "a.opus" else {}
        (songs / name).write_bytes(odd.sound(kind, 2, 48_000, **more))
    for name in ("cover.jpg", ".hidden"):
        (songs / name).write_bytes(odd.picture(kind="JPEG"))
    (songs / "list.csv").write_text("a,b")
    out = tmp_path / "r.safetensors"
    code, said, err = call("reference", songs, "--out", out, "--encoder", "spectral")
    assert code == 0 and said.startswith("4 rows of ")
    assert f"{songs}: 3 of 7 skipped, no sounds: cover.jpg, list.csv, more/" in caplog.text
    (songs / "e.m4a").write_bytes(b"junk")
    code, _, err = call("reference", songs, "--out", out, "--encoder", "spectral")
    assert code == 2 and "e.m4a: soundfile" in err and "Convert it: ffmpeg" in err
