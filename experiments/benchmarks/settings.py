"""What a suite is told: which shapes, which peers, how long."""

import dataclasses
from collections.abc import Callable

from experiments.benchmarks.libraries import Peer
from experiments.benchmarks.problem import Sizes


@dataclasses.dataclass(frozen=True)
class Settings:
    """
    Attributes:
      shapes: the sizes to measure, one after the other; None for the suite's own.
      peers: the libraries to measure against, by name.
      seconds: how long the programs of one problem are timed.
      least_rounds: how often each is timed however long it takes.
      devices: how many JAX devices the batch may be spread over.
      resident: whether to measure the memory of libraries without a compiler, each in a process of its own.
      say: takes a line on what is done now.
    """

    shapes: tuple[Sizes, ...] | None
    peers: dict[str, type[Peer]]
    seconds: float
    least_rounds: int = 5
    devices: int = 1
    resident: bool = True
    say: Callable[[str], None] = print
