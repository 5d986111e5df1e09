"""YAML as run files use it: plain data of bounded size and depth, and a sentence for whatever is none.

Texts, numbers, truth values, nothing, lists and mappings; a date stays the text that it was written as. No other tag
has a meaning. Anchors and aliases may be used as far as what they say in full stays within the bounds.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

from mmalign.core.errors import ConfigError

MOST_BYTES = 1 << 20
MOST_DEEP = 50
MOST_VALUES = 20_000
_PLAIN = ("str", "int", "float", "bool", "null", "seq", "map", "merge")


class NotYAML(ValueError):
    """A text that is no YAML of this kind; `place` is its line and column, from 1, or None."""

    def __init__(self, problem: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(" ".join(problem.split()))
        self.place = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader within bounds; a key that is written twice is a fault: the first would be lost unsaid."""

    def __init__(self, text: str) -> None:
        self._depth = 0
        self._sizes: dict[int, int] = {}  # values that a node stands for, aliases in full
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        mark = self.peek_event().start_mark
        self._depth += 1
        if self._depth > MOST_DEEP:
            raise NotYAML(f"sections are nested more than {MOST_DEEP} deep", mark)
        named = isinstance(self.peek_event(), yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if named and id(node) not in self._sizes:
            raise NotYAML("an alias stands inside of what it names", mark)
        if id(node) not in self._sizes:
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            inside = [each for pair in children for each in (pair if isinstance(pair, tuple) else (pair,))]
            self._sizes[id(node)] = 1 + sum(self._sizes[id(each)] for each in inside)
        if self._sizes[id(node)] > MOST_VALUES:
            raise NotYAML(f"there are more than {MOST_VALUES:,} values in it, with aliases written in full", mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise NotYAML(f"'{key.value[:80]}' is written twice in one section", key.start_mark)
                seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in _PLAIN:
            raise NotYAML(f"the tag '{node.tag[:80]}' has no meaning in a run file; leave it out", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, OverflowError, AttributeError, TypeError) as error:
            if isinstance(error, NotYAML):
                raise
            raise NotYAML(f"{str(node.value)[:80]!r} is no value of the kind '{kind}'", node.start_mark) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Return the plain data that `text` says; raises `NotYAML`."""
    if len(text) > MOST_BYTES:
        raise NotYAML(f"it is longer than {MOST_BYTES:,} characters, which no run file is")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except NotYAML:
        raise
    except yaml.MarkedYAMLError as error:
        raise NotYAML(error.problem or str(error), error.problem_mark) from None
    except yaml.reader.ReaderError as error:
        raise NotYAML(f"the character U+{error.character:04X} cannot stand in it") from None
    except (ValueError, OverflowError):  # of `chr`
        raise NotYAML("the number in this escape is no character's", loader.get_mark() if loader else None) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise NotYAML(str(error).partition("\n")[0], loader.get_mark() if loader else None) from None
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Path) -> Any:
    """Return the file's content; ConfigError with line and column if it is not YAML."""
    try:
        file_stat = path.stat()
        if not stat.S_ISREG(file_stat.st_mode):
            raise ConfigError(f"{path}: is no file that could hold a run.")
        if file_stat.st_size > MOST_BYTES:
            raise ConfigError(f"{path}: is longer than {MOST_BYTES:,} bytes, which no run file is.")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except NotYAML as error:
        raise ConfigError(f"{path}{f':{error.place}' if error.place else ''}: not valid YAML: {error}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
