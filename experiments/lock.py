"""A lock that one process holds at a time, and that the system takes away from it when it dies."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
from collections.abc import Iterator


class LockError(Exception):
    """Another process holds the lock; the message is one line that says which."""


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock file `path`, which names its owner; what a dead process of this host left is taken over.

    The system's own lock (`flock`) decides, and the file's content says who it is. Between hosts a file system need
    not pass the system's lock on: a file that names another host is refused, and stays for a person to remove.

    Raises:
      LockError: another process holds it, or may.
      OSError: the file cannot be made.
    """
    handle = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: pathlib.Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(handle, path):  # its owner removed it between our opening and our locking
                os.close(handle)
                continue
            owner = _owner(handle)
            here = platform.node()
            if owner is not None and owner["host"] != here:
                raise LockError(
                    f"{path} says that process {owner['pid']} on {owner['host']} is at work here, which {here} cannot "
                    "check; if it is gone, delete that file"
                )
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)
            return handle
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            who = "another process" if owner is None else f"process {owner['pid']} on {owner['host']}"
            raise LockError(f"{path.parent} is in use: {who} is at work there") from None
        except BaseException:
            os.close(handle)
            raise


def _is_at(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(handle: int) -> dict[str, str | int] | None:
    """Who the file names; None where it is empty, or torn by its owner's death."""
    try:
        return json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None
