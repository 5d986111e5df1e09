"""Pictures and sounds of rows, brought to what the run's generator makes when a row is indexed.

Headers alone say what will become of each (`FittedRows.plan`), so that it is told before anything is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import torch

from mmalign.core.errors import all_faults
from mmalign.core.options import NotNegative
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Example, Placement, Preference, Prompt
from mmalign.data.lazy_media import LazyMedia
from mmalign.data.lazy_rows import IndexedRows
from mmalign.data.mixed_rows import MixedRows, placed_in
from mmalign.data.recent import Recent
from mmalign.data.row_kinds import RowKind, kind_of_rows, prompts_of, units_of
from mmalign.data.sampled import sampled
from mmalign.media.audio import SoundShape
from mmalign.media.picture_fit import Fit, bucket_of, bucket_sizes, fitted, ground_of, placement_of
from mmalign.media.sound_fit import SoundTarget, converted, stretch, window_starts

__all__ = ["FittedRows", "MediaOptions", "PictureTarget", "refused", "samples_at"]


@dataclass(kw_only=True)
class MediaOptions:
    """What becomes of pictures and sounds that are not what the generator makes.

    Args:
        fit: of a picture of another size: "cover" (scaled until it fills the size, cropped at the middle), "contain"
            (scaled until all of it is inside, bands of the ground beside it), "stretch", or "refuse".
        ground: the colour behind transparency and in the bands of `contain`; a name or #rrggbb.
        buckets: pictures are brought to the nearest of several shapes of about the run's number of pixels; a step
            holds rows of one shape, and rows wait until those of their shape fill one.
        cut: of a sound that is longer than what the generator makes: its "start", a "random" stretch (another one in
            each pass), "windows" (all of it, as several rows with the same caption), or "refuse".
        encoded_gib: what the generator's encoders make of outputs and captions is kept on the disk for this and later
            runs, at most so many GiB ($MMALIGN_CACHE/encoded); 0 keeps nothing.
        fitted_gib: pictures and sounds stay in each process's memory as they were fitted, for later passes, at most so
            many GiB, and those not used for longest go first; 0 reads and fits each anew.
    """

    fit: Literal["cover", "contain", "stretch", "refuse"] = "cover"
    ground: str = "white"
    buckets: bool = False
    cut: Literal["start", "random", "windows", "refuse"] = "start"
    encoded_gib: NotNegative = 10.0
    fitted_gib: NotNegative = 1.0

    def __post_init__(self) -> None:
        ground_of(self.ground)
        if self.buckets and self.fit == "refuse":
            raise ValueError("buckets: true scales pictures to the nearest shape, which fit: refuse forbids; set one.")


@dataclass(frozen=True)
class PictureTarget:
    """What a generator makes: pictures of `size` (height, width), whose sides are multiples of `multiple` pixels."""

    size: tuple[int, int]
    multiple: int = 1


@dataclass(frozen=True)
class Stretch:
    """Which of the rows, and from which of its samples on, at the generator's rate."""

    row: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class FittedRows(IndexedRows[Any]):
    """Preferences or examples whose outputs fit `target`; prompts, and what they are about, stay as they are.

    Headers of all rows are read where buckets or windows need them, else those of a sample, for what is told.
    """

    rows: Any  # a sequence of preferences or examples that is decoded by indexing
    target: PictureTarget | SoundTarget
    options: MediaOptions
    seed: int = 0

    @property
    def row_kind(self) -> RowKind:
        """Of what the rows are."""
        return kind_of_rows(self.rows)

    @property
    def kind(self) -> str:
        """The modality of the outputs."""
        return "image" if isinstance(self.target, PictureTarget) else "audio"

    @cached_property
    def headers(self) -> list[tuple[str, Any]]:
        """Where the outputs of the rows that are looked into stand, and what their headers say."""
        rows: Any = sampled(self.rows)
        return list(rows.shapes())

    @cached_property
    def ground(self) -> tuple[float, float, float]:
        """The colour of the bands of `contain`."""
        return ground_of(self.options.ground)

    @property
    def sides(self) -> int:
        """How many outputs a row has: two of a preference, one of an example."""
        return 2 if self.row_kind == "preferences" else 1

    @cached_property
    def windows(self) -> list[Stretch]:
        """The rows that there are where sounds become windows; [] where each row stays one."""
        target = self.target
        if self.options.cut != "windows" or not isinstance(target, SoundTarget) or target.samples is None:
            return []
        starts = [window_starts(samples_at(shape, target), target.samples) for shape in self._first_shapes()]
        return [Stretch(row, start) for row, of_row in enumerate(starts) for start in of_row]

    @cached_property
    def buckets(self) -> list[tuple[int, int]]:
        """The size (height, width) that the pictures of each row are brought to, of several; [] where it is one."""
        if not isinstance(self.target, PictureTarget) or not self.options.buckets:
            return []
        sizes = bucket_sizes(self.target.size, self.target.multiple)
        return [bucket_of(shape, sizes) for shape in self._first_shapes()]

    def size(self, row: int) -> tuple[int, int]:
        """What the pictures of a row are brought to, (height, width)."""
        assert isinstance(self.target, PictureTarget)
        return self.buckets[row] if self.buckets else self.target.size

    def _first_shapes(self) -> list[Any]:
        headers = self.headers if len(sampled(self.rows)) == len(self.rows) else self.rows.shapes()
        shapes = [shape for _, shape in headers]
        if len(shapes) != self.sides * len(self.rows):  # one that cannot be read
            raise all_faults(self.rows.faults())
        return shapes[:: self.sides]

    def __len__(self) -> int:
        return len(self.windows) or len(self.rows)

    def made(self, index: int) -> Any:
        """Make row `index` as it is in the first pass."""
        return self.at(index)

    def at(self, index: int, epoch: int = 0) -> Any:
        """Row `index` as it is in pass `epoch` over the rows."""
        place = self.windows[index] if self.windows else Stretch(index)
        outputs = self._recent.get(index)
        if outputs is None:
            outputs = self._outputs(place, index, epoch)
        prompt, target = self._prompts[place.row], self.target
        if isinstance(target, SoundTarget):
            made: list[Any] = [Audio(samples, target.rate) for samples in outputs]
        else:
            laid = placement_of(self._original[place.row], self.size(place.row), self._fit)
            made, prompt = list(outputs), replace(prompt, placement=laid)
        return Preference(prompt, *made) if self.row_kind == "preferences" else Example(prompt, *made)

    @cached_property
    def _recent(self) -> Recent:
        """Outputs as they were fitted, by row, and whole sounds of which stretches are taken."""
        return Recent(int(self.options.fitted_gib * 2**30))

    @cached_property
    def _original(self) -> dict[int, tuple[int, int]]:
        """The size (height, width) of the first picture of each row that was made."""
        return {}

    @cached_property
    def _prompts(self) -> Sequence[Prompt]:
        return prompts_of(self.rows)

    @cached_property
    def _undecoded(self) -> Sequence[Any]:
        return units_of(self.rows)

    def _outputs(self, place: Stretch, index: int, epoch: int) -> Sequence[Tensor]:
        """The outputs of a row, fitted: pictures (3, h, w), or sounds (1, c, s)."""
        if isinstance(self.target, SoundTarget):
            return self._sounds(self.target, place, index, epoch)
        row, size = self.rows[place.row], self.size(place.row)
        outputs = _outputs_of(row)
        self._original[place.row] = tuple(outputs[0].shape[1:])
        made = [fitted(output, size, self._fit, self.ground) for output in outputs]
        self._recent.put(index, made)
        return made

    def _sounds(self, target: SoundTarget, place: Stretch, index: int, epoch: int) -> Sequence[Tensor]:
        rng = stream(self.seed, "cut", epoch, index) if self.options.cut == "random" else None

        def start_of(total: int) -> int:
            if rng is None or target.samples is None or total <= target.samples:
                return place.start
            return int(torch.randint(total - target.samples + 1, (1,), generator=rng))

        whole = self._recent.get(("whole", place.row))
        if whole is None:
            unit = self._undecoded[place.row] if self.row_kind == "examples" and target.samples else None
            lazy = isinstance(unit, Example) and isinstance(unit.output, LazyMedia)
            part = unit.output.part("audio", target, start_of) if lazy else None  # type: ignore[union-attr]
            if part is not None:
                if rng is None:
                    self._recent.put(index, [part[None]])
                return [part[None]]
            whole = [converted(sound.samples[0], sound.rate, target) for sound in _outputs_of(self.rows[place.row])]
            if self.options.cut in ("random", "windows"):
                self._recent.put(("whole", place.row), whole)
        made = [stretch(samples, start_of(samples.shape[-1]), target.samples)[None] for samples in whole]
        if self.options.cut in ("start", "refuse"):
            made = [samples.clone() for samples in made]
            self._recent.put(index, made)
        return made

    @property
    def _fit(self) -> Fit:
        return "cover" if self.options.fit == "refuse" else self.options.fit

    def place_at(self, position: int, seed: int) -> tuple[int, int] | None:
        """Which row comes at a position of the run, and its pass, where sources have shares; else None."""
        rows = self.rows
        return rows.place_at(position, seed, self._windows_of_parts) if isinstance(rows, MixedRows) else None

    @cached_property
    def _windows_of_parts(self) -> dict[str, int] | None:
        """How many rows each part has where sounds become windows."""
        if not self.windows:
            return None
        names, ends = list(self.rows.parts), list(accumulate(map(len, self.rows.parts.values())))
        return dict(Counter(names[placed_in(ends, window.row)[0]] for window in self.windows))

    def prompts(self) -> Sequence[Prompt]:
        """What was asked in every row; nothing is decoded."""
        prompts = prompts_of(self.rows)
        return [prompts[place.row] for place in self.windows] if self.windows else prompts

    def faults(self) -> list[str]:
        """What keeps rows from being read."""
        faults_of_rows: list[str] = self.rows.faults()
        return faults_of_rows

    def shapes(self) -> Iterator[tuple[str, Any]]:
        """Where each output stands that is looked into, and what its header says, before it is fitted."""
        return iter(self.headers)

    def plan(self) -> Iterator[tuple[str, Any, Placement | None]]:
        """Place and shape of each output that is looked into, and where a picture comes to lie."""
        rows = sampled(range(len(self.rows)))
        for number, (place, shape) in enumerate(self.headers):
            size = self.size(rows[number // self.sides]) if self.kind == "image" else None
            yield place, shape, placement_of(shape, size, self._fit) if size else None


def _outputs_of(row: Any) -> list[Any]:
    return [row.chosen, row.rejected] if isinstance(row, Preference) else [row.output]


def samples_at(shape: SoundShape, target: SoundTarget) -> int:
    """Samples of a sound at the rate of `target`."""
    return -(-shape.samples * target.rate // shape.rate)


def refused(rows: FittedRows) -> Iterator[str]:
    """A sentence for each output that differs from the target where `fit` or `cut` says that it may not."""
    target = rows.target
    refuses = rows.options.fit if isinstance(target, PictureTarget) else rows.options.cut
    for place, shape in rows.shapes() if refuses == "refuse" else ():
        if isinstance(target, PictureTarget):
            if shape != target.size:
                yield (
                    f"{place}: a picture of {shape[1]} x {shape[0]} (width x height), but the run makes "
                    f"{target.size[1]} x {target.size[0]}; set data.fit: cover, contain or stretch."
                )
        elif target.samples and samples_at(shape, target) > target.samples:
            yield (
                f"{place}: a sound of {shape.samples / shape.rate:g} s, but the run makes "
                f"{target.samples / target.rate:g} s; raise adapter.seconds, or set data.cut: start, random or windows."
            )
