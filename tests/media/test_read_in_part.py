"""A sound is read whole or refused: what a decoder leaves out in silence is found by the file's own structure."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmalign.core.errors import MediaError
from mmalign.media.audio import decode_audio, read_audio, sound_shape
from tests.media import odd

CONTAINERS = ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"]
OTHERS = ["FLAC", "OGG", "MP3"]


def frames(data: bytes) -> int:
    return soundfile.SoundFile(io.BytesIO(data)).frames


@pytest.mark.parametrize("kind", [*CONTAINERS, *OTHERS])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 999, 16_000])
def test_whole_files_are_read(kind: str, channels: int, count: int) -> None:
    data = odd.sound(kind, count / 8_000, channels=channels)
    samples, rate = decode_audio(data, "x")
    assert samples.shape == (channels, count) and rate == 8_000
    assert sound_shape(data, "x").samples == count and sound_shape(data, "x").channels == channels


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM"])
def test_wavs_of_every_depth_are_read_whole(subtype: str) -> None:
    samples, _ = decode_audio(odd.sound("WAV", 0.123, subtype=subtype), "x")
    assert samples.shape[1] >= 984


def test_opus_is_read() -> None:
    samples, rate = decode_audio(odd.sound("OGG", 1, 48_000, subtype="OPUS"), "x")
    assert (samples.shape[1], rate) == (48_000, 48_000)


@pytest.mark.parametrize("kind", CONTAINERS + OTHERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_off_files_are_refused(kind: str, share: float) -> None:
    data = odd.sound(kind, 8)
    with pytest.raises(MediaError, match=r"x: (the file is truncated: .* missing|soundfile .* (could not|found no))"):
        decode_audio(data[: int(len(data) * share)], "x")


@pytest.mark.parametrize("kind", CONTAINERS + OTHERS)
def test_files_joined_end_to_end_are_refused(kind: str) -> None:
    data = odd.sound(kind, 4)
    with pytest.raises(MediaError, match=r"several sounds one after another|before the file does|could not decode"):
        decode_audio(data + data, "x")


def test_a_chained_ogg_of_opus_is_refused() -> None:
    data = odd.sound("OGG", 2, 48_000, subtype="OPUS")
    with pytest.raises(MediaError, match="several sounds one after another"):
        decode_audio(data + data, "x")


def test_an_mp3_whose_length_is_a_guess_is_refused_with_both_lengths() -> None:
    data = odd.mp3_without_count()
    assert frames(data) < 0.9 * 20 * 44_100  # what the decoder would have given
    with pytest.raises(MediaError, match=r"holds 88\d{4} samples by its frames, and \d+ are decoded") as caught:
        decode_audio(data, "x")
    assert "convert it: ffmpeg -i FILE out.flac" in str(caught.value)


def test_an_mp3_of_one_bit_rate_without_a_count_is_read() -> None:
    whole = odd.sound("MP3", 10, 44_100, bitrate_mode="CONSTANT", compression_level=0.5)
    data = whole[whole.index(b"\xff\xfb", 4) :]
    assert abs(decode_audio(data, "x")[0].shape[1] - 441_000) < 8192


def test_tags_around_an_mp3_are_not_sound() -> None:
    plain = odd.sound("MP3", 4)
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb\x90\x64" * 64
    samples, _ = decode_audio(tag + plain + b"TAG" + b"\xff" * 125, "x")
    assert samples.shape[1] == decode_audio(plain, "x")[0].shape[1] == 32_000


@pytest.mark.parametrize("make", [lambda: odd.wav_of_size(1_000), lambda: odd.wav_of_size(10_000)])
def test_a_wav_whose_header_counts_too_little_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(MediaError, match=r"says that its sound ends \d+ bytes before the file does"):
        decode_audio(make(), "x")


def test_chunks_behind_the_sound_are_not_sound() -> None:
    more = b"LIST" + (26).to_bytes(4, "little") + b"INFOISFT" + (14).to_bytes(4, "little") + b"Lavf58.29.100\0"
    for behind in (more, more + b"\0" * 40, b"TAG" + b"x" * 125, b"\0" * 500):
        assert decode_audio(odd.sound() + behind, "x")[0].shape[1] == 16_000


@pytest.mark.parametrize("count", [2**36 - 1, 16_001])
def test_a_flac_that_claims_more_than_there_is_is_refused(count: int) -> None:
    with pytest.raises(MediaError, match=r"what its header claims is 68,719,476,735 samples; at most|could not decode"):
        decode_audio(odd.flac_of_samples(count), "x")


def test_a_flac_that_does_not_say_its_length_is_refused() -> None:
    with pytest.raises(MediaError, match="does not say how long it is"):
        decode_audio(odd.flac_of_samples(0), "x")


def test_how_much_is_read_is_bounded_and_can_be_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(odd.sound(channels=2))
    for variable, most in (("MMALIGN_MAX_SAMPLES", 31_999), ("MMALIGN_MAX_BYTES", 64_000)):
        monkeypatch.setenv(variable, str(most))
        for read in (read_audio, lambda path: sound_shape(path, "x")):
            with pytest.raises(MediaError, match=rf"at most {most:,} are read"):
                read(tmp_path / "a.wav")
        monkeypatch.setenv(variable, str(10**6))
    assert np.asarray(read_audio(tmp_path / "a.wav")[0]).shape == (2, 16_000)
