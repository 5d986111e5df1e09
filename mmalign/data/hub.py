"""Data sets that the `datasets` library reads: of the Hugging Face Hub, or a folder on this disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, did_you_mean, shown
from mmalign.core.files import write_beside
from mmalign.data.foreign import ArrowSchema, HubDataset

log = logging.getLogger("mmalign")

MOST_FILES = 100_000  # in a folder that is read as a data set
FOLDER = ("config", "data_files")  # options that a local folder has, too
DataFiles = str | list[str] | dict[str, str | list[str]]


@dataclass(frozen=True)
class DatasetOptions:
    """What of a data set is read; see `mmalign.data.file_source.FileSource`."""

    split: str = "train"
    config: str = ""
    revision: str = ""
    data_files: DataFiles | None = None
    streaming: bool = False
    limit: int = 0
    shuffle_buffer: int = 0
    shuffle_seed: int = 0

    def unread(self, kind: str) -> list[str]:
        """Return the options that are set and that a "file", "folder" or "hub" has no use for."""
        used = {"file": (), "folder": FOLDER, "hub": (*FOLDER, "revision", "streaming", "shuffle_buffer")}
        others = ("split", "limit", "shuffle_seed")
        named = {f.name: getattr(self, f.name) != f.default for f in fields(self) if f.name not in others}
        return [name for name, is_set in named.items() if is_set and name not in used[kind]]


def open_dataset(source: Path | str, name: str, options: DatasetOptions) -> Any:
    """Load a folder written by `save_to_disk`, a folder of data files, or a Hub dataset; pictures stay undecoded bytes.

    Raises:
        DataError: what the library cannot load, in a sentence; the configs or splits to choose from.
    """
    import datasets

    if isinstance(source, Path):
        _refuse_a_tree(source)
    place, config = _named(source, name, options)
    chosen = {"data_files": options.data_files, "revision": options.revision or None}
    if options.streaming:
        return _streamed(place, config, name, options, chosen)
    saved = isinstance(source, Path) and any((source / f).exists() for f in ("state.json", "dataset_dict.json"))
    try:
        loaded = datasets.load_from_disk(place) if saved else datasets.load_dataset(place, config or None, **chosen)
        if "[" in options.split and not saved:
            loaded = datasets.load_dataset(place, config or None, split=options.split, **chosen)
    except Exception as error:  # the library raises a dozen kinds; all mean the same here
        raise DataError(_reason(error, place, name, options)) from None
    return _undecoded(_split_of(loaded, name, options.split))


def _named(source: Path | str, name: str, options: DatasetOptions) -> tuple[str, str]:
    """Where the data set is, and which of its configs is read."""
    if isinstance(source, Path):
        return str(source), options.config
    place, _, config = source.partition(":")
    if config and options.config and config != options.config:
        raise DataError(f"{name}: names config '{config}', and data.config is '{options.config}'; set one of them.")
    return place, config or options.config


def _split_of(loaded: HubDataset, name: str, split: str) -> Any:
    if isinstance(loaded, Mapping):
        if split not in loaded:
            raise DataError(f"{name}: no split '{split}'.{did_you_mean(split, loaded)} Splits: {', '.join(loaded)}.")
        loaded = loaded[split]
    return loaded


def _undecoded(dataset: HubDataset) -> Any:
    for column, feature in dataset.features.items():
        if type(feature).__name__ in ("Image", "Audio", "Video"):
            dataset = dataset.cast_column(column, type(feature)(decode=False))
    return dataset


def _reason(error: Exception, place: str, name: str, options: DatasetOptions) -> str:
    import datasets

    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "onfig name is missing" in reason:
        try:
            configs = datasets.get_dataset_config_names(
                place, revision=options.revision or None, data_files=options.data_files
            )
        except Exception:  # it is only asked for its names
            configs = []
        listed = f" It has {', '.join(configs)}." if configs else ""
        return f"{name}: has several configs; set data.config to one of them.{listed}"
    return f"{name}: datasets {datasets.__version__} cannot load it: {reason}"


def _refuse_a_tree(folder: Path) -> None:
    """The library searches all of a folder, many times: one that holds a whole disk would never be read."""
    count = 0
    for _, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        if count > MOST_FILES:
            raise DataError(f"{folder}: holds more than {MOST_FILES:,} files; name the folder of the data set itself.")


def _streamed(place: str, config: str, name: str, options: DatasetOptions, chosen: Mapping[str, Any]) -> Any:
    """The first `limit` rows of a stream, on this disk: shuffled as a whole, and the same when a run goes on."""
    import datasets

    if not options.limit:
        raise DataError(
            f"{name}: data.streaming fetches the first data.limit rows and keeps them on this disk, and there is no "
            "data.limit; set it, e.g. limit: 10000, or leave streaming out to have the whole data set."
        )
    key = {"place": place, "config": config, "split": options.split, "limit": options.limit, **chosen}
    if options.shuffle_buffer:
        key |= {"shuffle_buffer": options.shuffle_buffer, "shuffle_seed": options.shuffle_seed}
    try:
        stream = datasets.load_dataset(place, config or None, streaming=True, **chosen)
    except Exception as error:
        raise DataError(_reason(error, place, name, options)) from None
    stream = _split_of(stream, name, options.split)
    try:
        stream = _undecoded(stream if stream.features is not None else stream._resolve_features())
        schema, path = stream.features.arrow_schema, arrow_path(key)
        log.warning("%s: %s", name, _which_rows(options))
        if options.shuffle_buffer:
            stream = stream.shuffle(seed=options.shuffle_seed, buffer_size=options.shuffle_buffer)
        if path.exists():
            log.warning("%s: the rows that were fetched before are read; to fetch them again, delete %s.", name, path)
        arrow_file(path, schema, _tables(stream.take(options.limit), schema))
    except Exception as error:
        raise DataError(_reason(error, place, name, options)) from None
    return datasets.Dataset.from_file(str(path))


def _which_rows(options: DatasetOptions) -> str:
    if options.shuffle_buffer:
        return (
            f"of the stream, {options.limit:,} rows are kept, drawn through a buffer of {options.shuffle_buffer:,} "
            f"(data.shuffle_buffer), its files in an order of data.shuffle_seed ({options.shuffle_seed})."
        )
    return (
        f"of the stream, the first {options.limit:,} rows alone are kept (data.limit), in whatever order they stand "
        "there; data.shuffle_buffer: 10000 draws from further on."
    )


def _tables(stream: HubDataset, schema: ArrowSchema) -> Iterator[Any]:
    for table in stream.with_format("arrow").iter(batch_size=256):
        yield table.cast(schema)


def arrow_path(key: Mapping[str, Any]) -> Path:
    """Return the file for what `key` says: where the `datasets` library keeps its own, in a folder `mmalign`."""
    from datasets import config

    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return Path(config.HF_DATASETS_CACHE) / "mmalign" / f"{digest}.arrow"


def arrow_file(path: Path, schema: ArrowSchema, tables: Iterable[Any]) -> None:
    """Write the rows of `tables` in Arrow's stream format, which is mapped into memory, unless the file is there."""
    import pyarrow

    if path.exists():
        return
    with write_beside(path) as beside, pyarrow.ipc.new_stream(beside, schema) as writer:
        for table in tables:
            writer.write_table(table)


def require_used(options: DatasetOptions, name: str, kind: str) -> None:
    """Raise DataError for options of data sets beside a `kind` of file that has no use for them."""
    if unread := options.unread(kind):
        values = ", ".join(f"data.{option}: {shown(getattr(options, option), 60)}" for option in unread)
        what = {"file": "a file", "folder": "a folder", "hub": "a dataset"}[kind]
        raise DataError(f"{name}: is {what}, and {values} is of datasets of the Hub; leave it out.")


__all__ = ["DataFiles", "DatasetOptions", "arrow_file", "arrow_path", "open_dataset", "require_used"]
