"""A reward in another process or on another machine, which `mmalign serve` scores there.

What it judges, its range and the columns that it needs are those of the served reward: it asks for them when it is
made, and asks for a trial row before a run begins. A request without an answer is an ERROR of its rows (TIMEOUT behind
the deadline), with the server's words; how many may fail before a run ends is said where it is of other rewards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

from mmalign.core.errors import ConfigError, MissingExtra, ScoreError, did_you_mean, importable
from mmalign.core.options import AtLeastOne, Count, NotNegative, Positive
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Modality, Rollout, Scores, Status, device_of
from mmalign.rewards.engine.contract import enforce_contract, merge, without_value
from mmalign.rewards.models.endpoint import Endpoint, Server, Unanswered
from mmalign.rewards.models.wire import Described, Malformed, Spec, Wire
from mmalign.rewards.models.wire_in import scores_in, spec_in
from mmalign.rewards.models.wire_out import message_of

__all__ = ["Remote"]

_HANDSHAKE = 10.0  # seconds for what a server says of itself
_ANSWER = 64 << 20  # bytes of an answer
_FILLED = 0.7  # of a request's bytes are outputs at most: base64 takes a third more, and prompts take some


@dataclass
class Remote:
    """Asks `mmalign serve` at `url` for the scores of rows.

    With `wire: safetensors` the values are those of the same reward in this process, bit for bit where the batches are
    the same; a model may round otherwise in batches of another size, which `mmalign serve --batch` bounds.

    Args:
        url: the server's address, as "http://gpu2:8700".
        served: the reward's name there; "" where it is the only one.
        token: the name of the environment variable that holds the server's token; "": none is sent.
        deadline: seconds for the scores of a request, all attempts and pauses together.
        attempts: how often a request is made at most.
        pause: seconds before the second attempt; they double, and a server may ask for more.
        concurrency: requests that are under way at once.
        rows: rows of a request; 0: all of a call, as far as the server takes them.
        wire: safetensors is exact; files are smaller: PNG of 8 bits, FLAC of 16.
    """

    url: str
    served: str = ""
    token: str = ""
    deadline: Positive = 300.0
    attempts: AtLeastOne = 4
    pause: NotNegative = 0.5
    concurrency: AtLeastOne = 8
    rows: Count = 0
    wire: Wire = "safetensors"

    differentiable: ClassVar[bool] = False
    packages: ClassVar[dict[str, str]] = {"httpcore": "remote"}

    _spec: Spec = field(init=False, repr=False, compare=False)
    _described: Described = field(init=False, repr=False, compare=False)
    _endpoint: Endpoint = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not importable("httpcore"):
            raise MissingExtra("reward 'remote' (package httpcore)", "remote")
        if faults := self._server(self.deadline).faults("", "token"):
            raise ConfigError(faults)
        self._endpoint = Endpoint(self._server(self.deadline), _ANSWER)
        self._spec = self._requested_spec()
        self.served = self.served or self._only()
        if self.served not in self._spec.rewards:
            hint = did_you_mean(self.served, self._spec.rewards)
            raise ConfigError(f"served: {self.url} serves no '{self.served}'.{hint} It serves {self._names}.")
        self._described = self._spec.rewards[self.served]

    def _server(self, deadline: float) -> Server:
        return Server(self.url, self.token, deadline, self.attempts, self.pause, self.concurrency)

    def _requested_spec(self) -> Spec:
        asking = Endpoint(self._server(min(self.deadline, _HANDSHAKE)))
        try:
            return spec_in(asking.ask("GET", "/spec"))
        except Unanswered as missing:
            raise ConfigError(f"url: {missing}; is `mmalign serve` running there?") from None
        except Malformed as error:
            raise ConfigError(f"url: {self.url}: {error}.") from None

    def _only(self) -> str:
        if len(self._spec.rewards) != 1:
            raise ConfigError(f"served: {self.url} serves {self._names}; name one of them.")
        return next(iter(self._spec.rewards))

    @property
    def _names(self) -> str:
        return ", ".join(self._spec.rewards) or "none"

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs that the served reward judges."""
        return frozenset(self._described.modalities)

    @property
    def range(self) -> tuple[float, float]:
        """The served reward's range."""
        return self._described.range

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta` that the served reward cannot do without."""
        return tuple(self._described.needs)

    @property
    def batch_dependent(self) -> bool:
        """Whether its scores depend on the other rows: a call is then one request."""
        return self._described.batch_dependent

    @property
    def deterministic(self) -> bool:
        """Whether equal rows always score the same there."""
        return self._described.identity is not None

    def fingerprint(self) -> str:
        """What tells the served reward, its options and weights, from others."""
        return self._described.identity or ""

    def described(self) -> str:
        """A sentence on what is asked where."""
        low, high = self.range
        return (
            f"{self.url} (mmalign {self._spec.mmalign}) serves '{self.served}': {self._described.reward}, of "
            f"{' and '.join(sorted(self.modalities))}, from {low:g} to {high:g}; a row is tried there when a run starts"
        )

    def prepare(self) -> None:
        """Have the server score its trial row.

        Raises:
            ConfigError: it cannot; with its words.
        """
        asking = Endpoint(self._server(self.deadline))
        try:
            asking.ask("GET", f"/health?reward={quote(self.served)}")
        except Unanswered as failed:
            raise ConfigError(f"url: {failed}; '{self.served}' does not score there.") from None

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows there, `rows` at a time.

        Raises:
            Malformed: a column of `meta` that JSON does not hold, or outputs that no file does.
        """
        size = self._rows(rollout)
        pieces = [rollout[start : start + size] for start in range(0, len(rollout), size)]
        return merge(self._endpoint.each(self._scored, pieces), device_of(rollout.output))

    def _rows(self, rollout: Rollout) -> int:
        """Rows of a request: as many as are asked for, and as the server takes."""
        if self.batch_dependent or not len(rollout):
            return max(len(rollout), 1)
        made, limits = rollout.output, self._spec.limits
        tensor = made.samples if isinstance(made, Audio) else made if isinstance(made, Tensor) else None
        fit = limits.rows if tensor is None else int(_FILLED * limits.bytes * len(rollout) / max(tensor.nbytes, 1))
        return max(1, min(self.rows or len(rollout), limits.rows, fit))

    def _scored(self, rollout: Rollout) -> Scores:
        message = message_of(rollout, self.served, self.wire)
        try:
            answer = self._endpoint.ask("POST", "/score", message)
            scores = scores_in(answer, len(rollout))
            self._require_same(answer)
            return enforce_contract(scores, len(rollout), self.range, self.served)
        except Unanswered as missing:
            return without_value(len(rollout), Status.TIMEOUT if missing.late else Status.ERROR, str(missing))
        except (Malformed, ScoreError) as error:
            return without_value(len(rollout), Status.ERROR, f"{self.url}: {error}")

    def _require_same(self, answer: dict[str, Any]) -> None:
        """Raise Malformed where another reward answers than the one that was made."""
        if (now := answer.get("identity")) != self._described.identity:
            raise Malformed(
                f"'{self.served}' scores by other weights or options ({str(now)[:12]}) than when the run began "
                f"({str(self._described.identity)[:12]})"
            )
