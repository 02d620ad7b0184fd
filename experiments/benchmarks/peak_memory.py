"""How much memory a call takes that no compiler tells of: measured from outside, in a process of its own."""

import ctypes
import multiprocessing
import pathlib
from collections.abc import Callable
from typing import Any

STATUS, CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def peak_growth(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
    """Returns by how many bytes a fresh process grows, at its peak, while it makes a call for the second time.

    Args:
      make: `make(*arguments)` returns the call; a function at the top of a module.
      *arguments: plain data.

    Returns:
      Bytes; None where the system does not tell (all but Linux).
    """
    if not CLEAR.exists():
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, make, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _report(sender: Any, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    call = make(*arguments)
    call()
    # What the allocator keeps of the first call must not hide what the second one needs.
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5", encoding="utf-8")  # Forgets the peak.
    before = _read("VmRSS")
    call()
    sender.send(_read("VmHWM") - before)


def _read(key: str) -> int:
    line = next(
        line for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith(f"{key}:")
    )
    return 1024 * int(line.split()[1])
