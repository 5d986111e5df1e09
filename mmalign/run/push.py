"""What a run trained, as a repository of the Hugging Face Hub: the weights, their card, and the run beside them.

The weights lie at the top, so that plain libraries load ORG/NAME; run file, numbers and report lie in `run/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmalign.core.checkpoints import latest
from mmalign.core.errors import ConfigError
from mmalign.core.files import write_beside

__all__ = ["Upload", "prepared", "require_repository", "upload"]

#: Of the run directory, what is read by those who want to know what was done.
BESIDE = ("run.yaml", "summary.json", "metrics.jsonl", "alarms.jsonl", "report.html")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_PLACE = re.compile(rb"(?<![\w./-])/(?:home|Users|root|mnt|data|scratch|work|tmp)/[\w./-]+")
MOST_READ = 20_000_000


@dataclass(frozen=True)
class Upload:
    """Files by their names in the repository, and those in which places of this machine are named."""

    files: dict[str, Path]
    places: dict[str, str]

    @property
    def bytes(self) -> int:
        """How much is sent."""
        return sum(path.stat().st_size for path in self.files.values())


def require_repository(name: str) -> None:
    """Raise ConfigError unless `name` is like ORG/NAME."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ConfigError(
            f"{name}: not the name of a repository; write ORG/NAME, of letters, digits, '-', '_' and '.'."
        )


@contextmanager
def prepared(run: Path, name: str) -> Iterator[Upload]:
    """Inside it, everything that is sent: the newest checkpoint's weights, a card for `name`, and the run's own files.

    Raises:
        CheckpointError: no whole checkpoint.
        ConfigError: `name` is none of a repository.
    """
    from mmalign.evaluation.card import weights_card
    from mmalign.evaluation.run_record import read_run

    require_repository(name)
    weights = latest(run / "checkpoints", way="train it first") / "adapter"
    text, gallery = weights_card(read_run(run), name)
    kept = [path for path in sorted(weights.rglob("*")) if path.is_file()]
    files = {path.relative_to(weights).as_posix(): path for path in kept}
    files = {place: path for place, path in files.items() if not place.startswith("gallery/")} | gallery.files
    with TemporaryDirectory() as folder:
        readme = Path(folder) / "README.md"
        with write_beside(readme) as beside:
            beside.write_text(text, encoding="utf-8")
        beside_it = {f"run/{place}": run / place for place in BESIDE if (run / place).is_file()}
        everything = files | {"README.md": readme} | beside_it
        yield Upload(everything, {place: match for place, path in everything.items() if (match := _place_in(path))})


def _place_in(path: Path) -> str:
    """The first path of this machine that a text file names; "" where there is none."""
    if path.suffix not in (".md", ".json", ".yaml", ".jsonl", ".html") or path.stat().st_size > MOST_READ:
        return ""
    match = _PLACE.search(path.read_bytes())
    return match.group().decode(errors="replace") if match else ""


def upload(
    sent: Upload, name: str, *, private: bool = True, endpoint: str | None = None, token: str | None = None
) -> str:
    """Make the repository where it is not there, and send everything as one commit; returns its address.

    Args:
        sent: what `prepared` gave, inside its block.
        name: ORG/NAME.
        private: of a repository that is made; one that is there stays as it is.
        endpoint: another Hub than the one of `HF_ENDPOINT`.
        token: instead of the one that `hf auth login` kept.

    Raises:
        ConfigError: the Hub refused, or cannot be reached; what it said.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    failures: Any = (*HfHubHTTPError.__bases__, RuntimeError)  # of whichever client it speaks HTTP by, and OSError
    api = HfApi(endpoint=endpoint, token=token)
    operations = [CommitOperationAdd(place, str(path)) for place, path in sent.files.items()]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.create_commit(name, operations, commit_message="Weights, card and run, by mmalign push")
    except LocalTokenNotFoundError:
        raise ConfigError("the Hub does not know you: log in by `hf auth login`, or set HF_TOKEN.") from None
    except OfflineModeIsEnabled:
        raise ConfigError("HF_HUB_OFFLINE is set: nothing is sent; unset it.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        hint = " Log in by `hf auth login`, or set HF_TOKEN." if status in (401, 403) else ""
        raise ConfigError(f"{name}: the Hub refused ({status}): {_message(error)}.{hint}") from None
    except failures as error:
        raise ConfigError(f"{name}: the Hub cannot be reached ({error}).") from None
    return str(done.commit_url).partition("/commit/")[0]


def _message(error: Exception) -> str:
    message = getattr(error, "server_message", None) or str(error).splitlines()[0]
    return str(message).strip().rstrip(".")
