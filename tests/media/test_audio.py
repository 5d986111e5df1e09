"""Sound survives files at its own loudness; broken files are named with their decoder."""

import base64
import io
from pathlib import Path

import pytest
import soundfile
import torch

from mmalign.core.errors import MediaError
from mmalign.media import audio as media


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


def test_uri_is_a_wav_file() -> None:
    body = media.audio_uri(tone(1), 8_000).removeprefix("data:audio/wav;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(body)))
    assert rate == 8_000 and len(samples) == 800


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
    with pytest.raises(MediaError, match=r"expected sound \(C, S\), got shape \(800,\)"):
        media.write_audio(tone()[0], 8_000, tmp_path / "a.wav")
    with pytest.raises(MediaError, match="contains NaN"):
        media.write_audio(tone() * float("nan"), 8_000, tmp_path / "a.wav")
