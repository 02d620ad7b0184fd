"""Atomic writes: a file or a folder is written under a temporary name, then renamed."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file atomically. A reader of `path` sees the old content or the new one.

    Raises:
      OSError: the file cannot be written; the old content is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes plain data as indented JSON. Bytes of a path that are not UTF-8 are written as escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`, and renames it to `path` at the end. A folder at `path` is replaced.

    After an error `path` is unchanged.
    """
    final = path.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary, replaced = (final.with_name(f".{final.name}.{os.getpid()}.{kind}.tmp") for kind in ("new", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if final.exists():
            os.replace(final, replaced)
        try:
            os.replace(temporary, final)
        except OSError:
            if replaced.exists():
                os.replace(replaced, final)
            raise
    finally:
        for leftover in (temporary, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
