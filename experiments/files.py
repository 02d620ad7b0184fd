"""Files that are either whole or not there: written under a temporary name, then renamed."""

import contextlib
import json
import os
import pathlib
from typing import Any


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file in one go; whoever reads `path`, at any moment, sees the old content or the new.

    Raises:
      OSError: that names `path`; what was there is there still.
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
    """Writes plain data as indented JSON. A byte of a path that is no UTF-8 stays what it is, as an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))
