"""Sound survives files at its own loudness; broken files are named with their decoder."""

import io
from pathlib import Path

import pytest
import soundfile
import torch

from mmalign.core.errors import MediaError
from mmalign.media import audio as media
from tests.typecheck import unchecked


def tone(channels: int = 2) -> torch.Tensor:
    return 0.25 * torch.sin(torch.arange(800) / 5).repeat(channels, 1)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_files_keep_sixteen_bits_and_loudness(tmp_path: Path, suffix: str) -> None:
    media.write_audio(tone(), 16_000, tmp_path / f"a{suffix}")
    samples, rate = media.read_audio(tmp_path / f"a{suffix}")
    assert rate == 16_000 and samples.shape == (2, 800)
    assert (samples - tone()).abs().max() <= 1 / 32768
    peer, _ = soundfile.read(tmp_path / f"a{suffix}")
    torch.testing.assert_close(samples.T.double(), torch.from_numpy(peer))


def test_broken_files_name_file_and_decoder(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not sound")
    soundfile.write(tmp_path / "silent.wav", torch.zeros(0, 1).numpy(), 8_000)
    with pytest.raises(MediaError, match=r"empty\.wav: the file is empty"):
        media.read_audio(tmp_path / "empty.wav")
    with pytest.raises(MediaError, match=r"text\.wav: soundfile [\d.]+ could not decode its 9 bytes"):
        media.read_audio(tmp_path / "text.wav")
    with pytest.raises(MediaError, match=r"silent\.wav: soundfile [\d.]+ found no samples"):
        media.read_audio(tmp_path / "silent.wav")
    with pytest.raises(MediaError, match=r"gone\.wav: cannot be read \(No such file"):
        media.read_audio(tmp_path / "gone.wav")
    with pytest.raises(MediaError, match=r"cannot write '.m4a' sound; use one of \.flac, \.mp3"):
        media.write_audio(tone(), 8_000, tmp_path / "a.m4a")
    with unchecked(), pytest.raises(MediaError, match=r"expected sound \(C, S\), got shape \(800,\)"):
        media.write_audio(tone()[0], 8_000, tmp_path / "a.wav")
    with pytest.raises(MediaError, match="contains NaN"):
        media.write_audio(tone() * float("nan"), 8_000, tmp_path / "a.wav")


def encoded(samples: torch.Tensor, kind: str, **options: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T.numpy(), 8_000, format=kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_every_format_is_read_by_its_bytes_whatever_its_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "mislabelled.wav").write_bytes(encoded(tone().repeat(1, 20), kind))
    samples, rate = media.read_audio(tmp_path / "mislabelled.wav")
    assert rate == 8_000 and len(samples) == 2 and abs(samples.shape[1] - 16_000) < 3000
    assert samples.square().mean().item() == pytest.approx(0.25**2 / 2, rel=0.1)


def test_odd_sounds_are_sounds(tmp_path: Path) -> None:
    (tmp_path / "eight.wav").write_bytes(encoded(tone(1), "WAV", subtype="PCM_U8"))
    assert (media.read_audio(tmp_path / "eight.wav")[0] - tone(1)).abs().max() <= 1 / 64
    (tmp_path / "many.wav").write_bytes(encoded(tone(6), "WAV"))
    assert media.read_audio(tmp_path / "many.wav")[0].shape == (6, 800)
    (tmp_path / "one.flac").write_bytes(encoded(tone(1)[:, 3:4], "FLAC"))
    assert media.read_audio(tmp_path / "one.flac")[0].shape == (1, 1)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_never_read_in_part(tmp_path: Path, kind: str, share: float) -> None:
    whole = encoded(torch.randn(1, 80_000) * 0.1, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(MediaError, match=r"cut\.\w+: (the file is truncated: .* missing|soundfile .* could not)"):
        media.read_audio(path)


def test_samples_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    samples = tone(1).clone()
    samples[0, 5], samples[0, 9] = float("nan"), float("inf")
    (tmp_path / "nan.wav").write_bytes(encoded(samples, "WAV", subtype="FLOAT"))
    with pytest.raises(MediaError, match=r"nan\.wav: 2 of its 800 samples are not finite"):
        media.read_audio(tmp_path / "nan.wav")


def test_a_wav_written_to_a_pipe_has_no_size(tmp_path: Path) -> None:
    data = bytearray(encoded(tone(1), "WAV"))
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "pipe.wav").write_bytes(data)
    assert media.read_audio(tmp_path / "pipe.wav")[0].shape == (1, 800)
