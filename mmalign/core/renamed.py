"""Keys of run files that were renamed. The old ones work, with one warning, until the release named here.

What is stable, and for how long, is told in STABILITY.md.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

UNTIL = "0.3"
RENAMED = {
    "trainer.batch": "trainer.prompts_per_step",
    "trainer.rows": "trainer.micro_batch_size",
    "trainer.spans": "trainer.steps_per_pass",
}

log = logging.getLogger("mmalign")


def with_new_names(raw: Mapping[str, Any], changes: Iterable[str] = ()) -> tuple[dict[str, Any], list[str], list[str]]:
    """A raw run file and changes of it with old keys renamed, and a sentence for each key that the file has twice.

    One warning names all the keys that were renamed. A change wins over the file, whichever name each of them uses.
    `raw` stays as it is.
    """
    result, faults, renamed = copy.deepcopy(dict(raw)), [], {}
    for old, new in RENAMED.items():
        section, _, key = old.rpartition(".")
        options, successor = result.get(section), new.rpartition(".")[2]
        if not isinstance(options, dict) or key not in options:
            continue
        if successor in options:
            faults.append(f"{old}: is the old name of {new}, which is given, too; keep one.")
            del options[key]
            continue
        result[section] = {successor if name == key else name: value for name, value in options.items()}
        renamed[old] = new
    present = list(changes)
    for index, change in enumerate(present):
        path, equals, value = change.partition("=") if isinstance(change, str) else ("", "", "")
        if path in RENAMED and equals:
            present[index] = f"{RENAMED[path]}={value}"
            renamed[path] = RENAMED[path]
    if renamed:
        words = "; ".join(f"{old} is now {new}" for old, new in renamed.items())
        log.warning("renamed options: %s. The old names work until mmalign %s.", words, UNTIL)
    return result, present, faults
