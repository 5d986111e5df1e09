"""One model is loaded at a time in a process, without bars and notices, and nothing asks a question meanwhile.

transformers, diffusers and accelerate patch `torch.nn` and the default device while they build a network, and resolve
their modules on first use; two threads in there at once leave parameters without storage, and a process that cannot
load any more.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from mmalign.core.packages import leave_out_broken

P = ParamSpec("P")
T = TypeVar("T")

_LOCK = threading.RLock()
#: Say that torchao's types moved, which matters to files that hold them; none are read here.
_NOTES = ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")
_NOTICES = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)  # of packages to those who call them: us


@contextmanager
def alone() -> Iterator[None]:
    """Inside it, no other thread loads: around "is it there? if not, load it"."""
    with _LOCK:
        yield


@contextmanager
def loading(networks: bool = True) -> Iterator[None]:
    """Inside it, this thread alone imports and builds models, quietly; may be nested.

    Downloads stand outside of it: their bars are what a waiting user wants to see. Without `networks`, what is loaded
    imports neither torch nor torchaudio, which need not be tried then.
    """
    if networks:
        leave_out_broken()
    with _LOCK, warnings.catch_warnings(), ExitStack() as stack:
        for category in _NOTICES:
            warnings.simplefilter("ignore", category)
        stack.enter_context(_quiet_libraries())
        yield


def loaded_once(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function of hashable arguments that loads a model: the `most` latest results are kept and shared.

    Threads that ask for one model at once get the same object, loaded once; a failure is not kept.
    """

    def decorate(load: Callable[P, T]) -> Callable[P, T]:
        cache: OrderedDict[Any, T] = OrderedDict()
        guard = threading.Lock()  # of `kept`; never held while loading

        def kept(key: Hashable) -> T | None:
            with guard:
                if key in cache:
                    cache.move_to_end(key)
                return cache.get(key)

        @wraps(load)
        def once(*args: P.args, **options: P.kwargs) -> T:
            key = (args, tuple(sorted(options.items())))
            if (known := kept(key)) is not None:
                return known
            with alone():
                if (known := kept(key)) is not None:  # another thread was before us
                    return known
                made = load(*args, **options)
                with guard:
                    cache[key] = made
                    while len(cache) > most:
                        cache.popitem(last=False)
                return made

        def cache_clear() -> None:
            with guard:
                cache.clear()

        once.cache_clear = cache_clear  # type: ignore[attr-defined]
        return once

    return decorate


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No loading bars and no lines below an error from transformers and diffusers, and no question on stdin."""
    for name in _NOTES:
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers.dynamic_module_utils as remote
    from transformers.utils import logging as of_transformers

    with ExitStack() as stack:
        stack.enter_context(_hushed(of_transformers))
        if "diffusers" in sys.modules:
            from diffusers.utils import logging as of_diffusers

            stack.enter_context(_hushed(of_diffusers))
        # A library that forgets to say `trust_remote_code=False` would ask; with no time to answer it raises.
        patience, remote.TIME_OUT_REMOTE_CODE = remote.TIME_OUT_REMOTE_CODE, 0
        try:
            yield
        finally:
            remote.TIME_OUT_REMOTE_CODE = patience


@contextmanager
def _hushed(library: ModuleType) -> Iterator[None]:
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
