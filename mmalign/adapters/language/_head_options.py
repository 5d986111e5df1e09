"""What a run file says of the head of a reward model; `_score_heads.py` has the heads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmalign.core.errors import ConfigError

Kind = Literal["linear", "mlp2", "ideal_point"]


@dataclass
class HeadOptions:
    """`kind` of head; `seed` draws a fresh one.

    `width`: hidden features of mlp2, dimensions of the space of ideal points; 0 is the network's own width.
    `prototypes`: of ideal_point. `users`: whose ideal points are told apart, by name as the column `user_column` says;
    none is one point for all.
    """

    kind: Kind = "linear"
    width: int = 0
    prototypes: int = 2
    users: list[str] = field(default_factory=list)
    user_column: str = "user"
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.width < 0:
            faults.append(f"head.width: {self.width} must be at least 0.")
        if self.prototypes < 1:
            faults.append(f"head.prototypes: {self.prototypes} must be at least 1.")
        if self.users and self.kind != "ideal_point":
            faults.append(f"head.users: a {self.kind} head does not tell users apart; set kind: ideal_point.")
        if twice := sorted({user for user in self.users if self.users.count(user) > 1}):
            faults.append(f"head.users: names {', '.join(twice)} twice.")
        if faults:
            raise ConfigError(faults)
