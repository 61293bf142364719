"""The environment in which a launcher, such as torchrun, starts processes."""

import os
from dataclasses import dataclass

from sglr.config import ConfigError


@dataclass(frozen=True)
class Launch:
    """This process's place among those that a launcher, such as torchrun, started."""

    rank: int
    size: int
    local_rank: int
    local_size: int = 1
    """How many there are on this machine, where the launcher says so."""


def launched() -> Launch | None:
    """The launcher's environment: RANK, WORLD_SIZE and LOCAL_RANK; None without a launcher, or alone under it.

    Raises ConfigError when they are inconsistent.
    """
    found = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if found[0] is None or found[1] is None:
        return None
    try:
        rank, size = int(found[0]), int(found[1])
        local = int(found[2] or (0 if size == 1 else -1))
    except ValueError:
        rank = size = local = -1
    if found[2] is None and size > 1:
        raise ConfigError("RANK and WORLD_SIZE are set and LOCAL_RANK is not (0 where each machine has one process)")
    if not 0 <= rank < size or not 0 <= local < size:
        raise ConfigError(
            f"RANK={found[0]}, WORLD_SIZE={found[1]} and LOCAL_RANK={found[2]}: 0 <= RANK < WORLD_SIZE and 0 <="
            " LOCAL_RANK < WORLD_SIZE is expected"
        )
    beside = os.environ.get("LOCAL_WORLD_SIZE", "")
    return Launch(rank, size, local, int(beside) if beside.isdecimal() else 1) if size > 1 else None
