"""Several sources in one run, each with its share of the rows of every step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from mmalign.core.errors import ConfigError, DataError, MmalignError, shown, together
from mmalign.core.protocols import DataSource
from mmalign.data.held_out import shared_rows
from mmalign.data.intake import MediaOptions
from mmalign.data.mixed_rows import BLOCK, MixedRows, picked
from mmalign.data.row_kinds import kind_of_rows, modality_of_rows, units_of

__all__ = ["Mixture"]

log = logging.getLogger("mmalign")


@dataclass
class Mixture(MediaOptions):
    """Rows of several sources, which are all prompts, all preferences of one modality, or all examples of one.

        data:
          name: mixture
          parts:
            style:   {name: captioned, path: mine/, share: 0.3}
            general: {name: captioned, path: hub:me/many, held_out: 0.01, share: 0.7}

    In every 10,000 rows that are drawn each part has exactly its share, in an order of the seed's, so that a step has
    it on average; a part's rows are passed over in full before one of them comes again. With `buckets` the drawn rows
    wait until those of one shape fill a step. Without shares all rows are shuffled together. Held-out rows of the parts
    are evaluated on together; what one part holds out no other trains on.

    Args:
        parts: sources by name, each with its options and, for all or for none of them, `share`: of the rows drawn, in
            steps of 0.0001; they sum to 1.
        relative_to: the run file's folder; set by mmalign.
    """

    parts: dict[str, dict[str, Any]]
    _: KW_ONLY
    relative_to: Path | None = None
    make: Callable[[Any, str], DataSource] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.make is None:
            raise ConfigError("data 'mixture' is built of other sources; use a run file.")
        if faults := self._broken():
            raise ConfigError(faults)
        self.sources: dict[str, DataSource] = {}
        errors = list[MmalignError]()
        for name, spec in self.parts.items():
            try:
                own = {key: value for key, value in spec.items() if key != "share"}
                self.sources[name] = self.make(own, f"parts.{name}")
            except MmalignError as error:
                errors.append(error)
        if errors:
            raise together(errors)
        if faults := list(self._of_parts()):
            raise ConfigError(faults)
        self.make = None

    def _of_parts(self) -> Iterator[str]:
        """Sentences on options that count for all parts."""
        names = [f.name for f in fields(MediaOptions)]
        for part, spec in self.parts.items():
            for name in names:
                if name in spec:
                    yield f"parts: {part} has a {name} of its own, which is one for all parts; write it beside `parts`."

    def _broken(self) -> list[str]:
        """Sentences on parts and shares."""
        if not self.parts:
            return ["parts: is empty; name the sources to mix."]
        odd = [name for name, spec in self.parts.items() if not isinstance(spec, Mapping)]
        if odd:
            return [f"parts: {name} must be written as {{name: …, share: …}}." for name in odd]
        shares = {name: spec["share"] for name, spec in self.parts.items() if "share" in spec}
        if shares and len(shares) < len(self.parts):
            without = ", ".join(name for name in self.parts if name not in shares)
            return [f"parts: {without} has no share, and others have; set share for all of them, or for none."]
        if odd := [name for name, share in shares.items() if not _is_share(share)]:
            return [
                f"parts: the share of {name} is {shown(shares[name])}, not in (0, 1] in steps of 0.0001."
                for name in odd
            ]
        total = sum(shares.values())
        if shares and abs(total - 1) > 1e-9:
            like = ", ".join(f"{name}: {share / total:.4f}" for name, share in shares.items())
            return [f"parts: the shares sum to {total:g}, not to 1; write e.g. {like}."]
        return []

    def training_items(self) -> Sequence[Any]:
        """Return the rows to train on, part by part."""
        return self._sides[0]

    def held_out_items(self) -> Sequence[Any]:
        """Return the rows that any part holds out, part by part."""
        return self._sides[1]

    @cached_property
    def _sides(self) -> tuple[Sequence[Any], Sequence[Any]]:
        training = {name: source.training_items() for name, source in self.sources.items()}
        aside = {name: source.held_out_items() for name, source in self.sources.items()}
        kinds = {name: (kind_of_rows(rows), modality_of_rows(rows)) for name, rows in training.items()}
        if len(set(kinds.values())) > 1:
            named = "; ".join(f"{name}: {rows}{f' of {of}' if of else ''}" for name, (rows, of) in kinds.items())
            raise DataError(f"data.parts: rows of different kinds cannot be mixed ({named}).")
        row_kind = next(iter(kinds.values()))[0]
        shares = {name: float(spec["share"]) for name, spec in self.parts.items() if "share" in spec}
        apart = {name: self._apart(name, rows, aside) for name, rows in training.items()}
        held_out = {name: rows for name, rows in aside.items() if len(rows)}
        return MixedRows(row_kind, apart, shares or None), MixedRows(row_kind, held_out) if held_out else []

    def _apart(self, name: str, rows: Sequence[Any], aside: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
        """The rows of a part without those that another part holds out."""
        others = [unit for other, more in aside.items() if other != name for unit in units_of(more)]
        leaks = set(shared_rows(units_of(rows), others)) if others else set()
        if not leaks:
            return rows
        if len(leaks) == len(rows):
            raise DataError(f"data.parts.{name}: all of its {len(rows)} rows are held out by other parts.")
        log.warning(
            "data.parts.%s: %d of its %d rows are held out by another part and are not trained on.",
            *(name, len(leaks), len(rows)),
        )
        return picked(rows, [at for at in range(len(rows)) if at not in leaks])


def _is_share(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= 1 and abs(value * BLOCK - round(value * BLOCK)) < 1e-6
