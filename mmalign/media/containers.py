"""What a sound file says it holds beside what is there: decoders read a part of some files and say nothing.

Sources: RIFF (Microsoft, Multimedia Programming Interface 1.0), RF64 (EBU Tech 3306), Wave64 (Sony Pictures Digital,
2003), AIFF (Apple, 1989), AU (Sun), CAF (Apple, Core Audio Format 1.0), Ogg (RFC 3533), FLAC (RFC 9639), MPEG audio
(ISO 11172-3, 13818-3), ID3v2 (id3.org).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["unread"]

UNKNOWN = 0x7FFFF000  # writers to a pipe do not know the size and leave it at its largest
MOST_CHUNKS = 100_000
SLACK = 8192  # samples that an MP3's encoder delay and padding may take away
TAGS = (b"TAG", b"ID3", b"APETAGEX")  # of players, behind the sound


def unread(data: bytes, promised: int, decoded: int) -> str:
    """What is missing of the decoded frames, or of the file, as the end of a sentence; "" if nothing is.

    Args:
        data: the whole file.
        promised: frames that the decoder said there are.
        decoded: frames that it gave.
    """
    if data[:4] == b"OggS":
        return _ogg(data)
    if data[:3] == b"ID3" or (data[:1] == b"\xff" and len(data) > 1 and data[1] >= 0xE0):
        return _mpeg(data, decoded)
    if data[:4] == b"fLaC" and data.find(b'fLaC\x00\x00\x00"', 4) > 0:
        return "holds several sounds one after another, of which the first is decoded"
    start, size = _sound_chunk(data)
    if start and (fault := _chunk_fault(data, start, size)):
        return fault
    return f"is truncated: {promised - decoded} of its samples are missing" if promised > decoded else ""


@dataclass(frozen=True)
class _Layout:
    """How a container writes chunks: a name, a size (which may count the head that both make), content, and filling."""

    sound: bytes
    first: int
    name: int
    size: str
    counts_head: bool
    fill: int

    @property
    def head(self) -> int:
        """Bytes before the content."""
        return self.name + struct.calcsize(self.size)


_RIFF = _Layout(b"data", 12, 4, "<I", False, 2)
LAYOUTS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"FORM": _Layout(b"SSND", 12, 4, ">I", False, 2),
    b"caff": _Layout(b"data", 8, 4, ">q", False, 1),
    b"riff": _Layout(b"data", 40, 16, "<Q", True, 8),
}


def _chunks(data: bytes, at: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, size) of the chunks from `at` on, up to one that cannot be any."""
    for _ in range(MOST_CHUNKS):
        name = data[at : at + 4]
        if at + layout.head > len(data) or not (name.isascii() and name.decode("ascii").isprintable()):
            return
        (size,) = struct.unpack_from(layout.size, data, at + layout.name)
        size -= layout.head if layout.counts_head else 0
        yield name, at + layout.head, size
        if size < 0:
            return
        at += layout.head + size
        at += -at % layout.fill


def _sound_chunk(data: bytes) -> tuple[int, int]:
    """Where the samples begin and how many bytes they are; (0, 0) where nothing says it."""
    if data[:4] == b".snd" and len(data) >= 24:
        start, size = struct.unpack_from(">II", data, 4)
        return (start, size) if size < UNKNOWN else (0, 0)
    if (layout := LAYOUTS.get(data[:4])) is None:
        return 0, 0
    wide = 0
    for name, start, size in _chunks(data, layout.first, layout):
        if name == b"ds64" and len(data) >= start + 16:
            (wide,) = struct.unpack_from("<Q", data, start + 8)
        if name == layout.sound:
            size = wide if data[:4] == b"RF64" else size
            unknown = size < 0 or (layout.size in ("<I", ">I") and not wide and size >= UNKNOWN)
            return (0, 0) if unknown else (start, size)
    return 0, 0


def _chunk_fault(data: bytes, start: int, size: int) -> str:
    """What is wrong with the samples' bytes: they are cut off, or more of them follow; "" if nothing is."""
    available = len(data) - start
    if size > available + 1:
        return f"is truncated: {size - available} bytes are missing at its end"
    end, layout = start + size, LAYOUTS.get(data[:4])
    if layout is not None:
        end += -end % layout.fill
        for name, content, length in _chunks(data, end, layout):
            if name in LAYOUTS or length < 0 or content + length > len(data) + 1:
                break
            end = content + length
            end += -end % layout.fill
    rest = data[end:]
    if len(rest) < 8 or rest.startswith(TAGS) or not rest.strip(b"\0"):
        return ""
    return f"says that its sound ends {len(rest)} bytes before the file does"


def _ogg(data: bytes) -> str:
    """Every page is whole, the last one says that it is, and no stream begins after others went on."""
    at, began, flags = 0, False, 0
    while at < len(data):
        segments = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
        end = at + 27 + len(segments) + sum(segments)
        if data[at : at + 4] != b"OggS" or not segments or len(segments) < data[at + 26] or end > len(data):
            rest = data[at:]
            return "" if flags & 4 and not rest.strip(b"\0") else "is truncated: pages are missing at its end"
        flags = data[at + 5]
        if flags & 2 and began:
            return "holds several sounds one after another, of which the first is decoded"
        began, at = began or not flags & 2, end
    return "" if flags & 4 else "is truncated: pages are missing at its end"  # 4 marks the last page


@dataclass(frozen=True)
class _Frame:
    """A frame of MPEG audio: where it begins and ends, and its samples."""

    start: int
    end: int
    samples: int


_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz of MPEG 1, 2, 2.5
_KBITS = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame whose header stands at `at`; None if none does, or its length is free."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] < 0xE0:
        return None
    version, layer, second = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3, data[at + 2]
    if version == 1 or layer == 0 or not 0 < second >> 4 < 15 or second >> 2 & 3 == 3:
        return None
    rate, kbits = _RATES[version][second >> 2 & 3], _KBITS[(version == 3, layer)][(second >> 4) - 1]
    padding, first = second >> 1 & 1, version == 3
    if layer == 3:
        return _Frame(at, at + (12000 * kbits // rate + padding) * 4, 384)
    samples = 1152 if layer == 2 or first else 576
    return _Frame(at, at + samples // 8 * 1000 * kbits // rate + padding, samples)


def _frames(data: bytes) -> Iterator[_Frame]:
    """All frames; what lies between them (tags, damage) is passed over up to where two frames follow each other."""
    at = 0
    while at + 4 <= len(data):
        if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            size = data[at + 6] << 21 | data[at + 7] << 14 | data[at + 8] << 7 | data[at + 9]
            at += 10 + size + (10 if data[at + 5] & 16 else 0)
            continue
        frame = _frame(data, at)
        if frame and (frame.end >= len(data) or _frame(data, frame.end) or data.startswith(TAGS, frame.end)):
            yield frame
            at = frame.end
        else:
            at = _next_start(data, at + 1)


def _next_start(data: bytes, at: int) -> int:
    places = [place for place in (data.find(b"\xff", at), data.find(b"ID3", at)) if place >= 0]
    return min(places, default=len(data))


def _count(data: bytes, frame: _Frame) -> int | None:
    """How many frames follow, by the encoder's own count (Xing or Info; VBRI) in place of sound; None without one."""
    head = data[frame.start : min(frame.end, frame.start + 64)]
    for mark, flags, place in ((b"Xing", 4, 8), (b"Info", 4, 8), (b"VBRI", 0, 14)):
        if (at := head.find(mark)) >= 0:
            known = not flags or (head[at + 4 : at + 8][-1:] and head[at + 7] & 1)
            return int.from_bytes(head[at + place : at + place + 4], "big") if known else 0
    return None


def _mpeg(data: bytes, decoded: int) -> str:
    frames = list(_frames(data))
    if not frames:
        return ""  # of free length: only the decoder knows
    count = _count(data, frames[0])
    joined = any(data[one.end : one.end + 3] == b"ID3" for one in frames[:-1])
    if joined or any(_count(data, frame) is not None for frame in frames[1:]):
        return "holds several sounds one after another, of which not all is decoded"
    whole = [frame for frame in frames[count is not None :] if frame.end <= len(data)]
    if count and len(whole) < count - 1:  # some encoders count the frame of the count
        return f"is truncated: {count - len(whole)} of its {count} frames are missing"
    samples = sum(frame.samples for frame in whole)
    if samples > decoded + SLACK:
        return (
            f"holds {samples} samples by its frames, and {decoded} are decoded (its own count of them is wrong or none)"
        )
    return ""
