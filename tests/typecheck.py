"""The run-time type checker of the tests: every annotated call in mmalign, but in the folders of `NOT_CHECKED`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception
from jaxtyping import config

import mmalign

F = TypeVar("F", bound=Callable[..., Any])

PACKAGE = Path(mmalign.__path__[0])
NOT_CHECKED = {
    "data/": "its sequences decode a row when it is indexed, and the checker indexes one of every sequence it is given",
    "run/checks/": "adapters are judged before they are loaded, when they have no `module` yet",
    "cli/_later.py": "its modules are executed by the first look at them, and the checker looks",
    "run/build.py": "it holds an adapter that is not loaded yet",
}
FILES = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
CHECKED = ["mmalign." + file[:-3].replace("/", ".") for file in FILES if not file.startswith(tuple(NOT_CHECKED))]

# An int is a float where a float is wanted (PEP 484).
_strict = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: F) -> F:
    """`function`, whose arguments and result are compared with its annotations.

    `Self` means nothing to a checker that sees one method at a time: such methods are left as they are.
    """
    try:
        return _strict(function)
    except BeartypeDecorHintPep673Exception:
        return function


@contextmanager
def unchecked() -> Iterator[None]:
    """Inside it nothing is compared, as for users: to test what a function says itself of a value of another type."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
