"""Look-up, verification and download of data files.

pooch does the HTTP requests, the hashing and the choice of the cache folder. This module adds what pooch lacks:
compressed files can be verified by their contents, files are written atomically, only transient errors are retried, and
nothing in a folder that the user named is overwritten.
"""

import contextlib
import functools
import gzip
import hashlib
import os
import secrets
import tarfile
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import pooch
from tqdm import tqdm

from experiments.data.registry import REGISTRY, Dataset, Digest, File
from experiments.schema import UserError

if TYPE_CHECKING:
    import requests

_BLOCK = 1 << 20
_STALE_AFTER_S = 24 * 3600.0
_HEADERS = {"User-Agent": "gru_jax", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RetryPolicy:
    """Time limits and retries of a download.

    Attributes:
      attempts: tries per URL; only transient errors are retried.
      timeout_s: for the connection, and for every read from it.
      backoff_s: wait before the first retry; doubled before each further one.
      min_bytes_per_s: a slower transfer is aborted after `timeout_s`.
    """

    attempts: int = 3
    timeout_s: float = 30.0
    backoff_s: float = 1.0
    min_bytes_per_s: float = 1000.0


RETRY = RetryPolicy()


def fetch(
    dataset: str,
    file: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    registry: Mapping[str, Dataset] = REGISTRY,
    retry: RetryPolicy = RETRY,
) -> Path:
    """Returns the path of a data file after verifying its checksum; downloads the file if it is missing.

    The file is `<folder>/<dataset>/<file>`, where the folder is `data_dir`, else `$GRU_JAX_DATA`, else the user's
    cache (`$XDG_CACHE_HOME/gru_jax`, `~/.cache/gru_jax`). A corrupt file in the cache is replaced, with a warning.
    In a folder that the user named no existing file is overwritten; a corrupt one is an error.

    Args:
      dataset: name in the registry.
      file: name of one of its files.
      data_dir: the folder of all data sets. If None or empty, the default is used.
      registry: the known data sets.
      retry: time limits and retries of a download.

    Raises:
      UserError: the data set or file is unknown, its checksum does not match, or it is missing and cannot be
        downloaded or written.

    Example:
      >>> text = fetch("tiny_shakespeare", "input.txt").read_text(encoding="utf-8")
    """
    entry = _look_up(dataset, file, registry)
    named = os.fspath(data_dir) if data_dir else os.environ.get("GRU_JAX_DATA")
    folder = (Path(named).expanduser() if named else user_cache()).resolve()
    path = folder / dataset / file
    if not path.resolve().is_relative_to(folder / dataset):
        raise UserError(f"{path}: expected a file inside the data folder, got a link to {path.resolve()}")
    if path.exists():
        try:
            if is_intact(path, entry):
                return path
            found = pooch.file_hash(path)
        except OSError as fault:
            raise UserError(f"cannot read {path}: {fault.strerror or fault}") from None
        what = f"{path}: expected the recorded file with sha256 {entry.stored.sha256}, got {found}"
        if named:
            raise UserError(f"{what}; delete it to download it again")
        warnings.warn(f"{what}; downloading it again", stacklevel=2)
    _download(dataset, entry, path, retry)
    return path


def user_cache() -> Path:
    """Returns the cache folder for data sets. It need not exist."""
    return Path(pooch.os_cache("gru_jax"))


def is_intact(path: Path, entry: File) -> bool:
    """Returns whether a file has the recorded contents. An unchanged file is read once per process."""
    state = path.stat()
    return _is_intact(path, entry, (state.st_ino, state.st_size, state.st_mtime_ns))


@functools.lru_cache(maxsize=1024)
def _is_intact(path: Path, entry: File, state: tuple[int, int, int]) -> bool:
    del state  # part of the cache key: a changed file is read again
    return _matches(path, entry)


def _matches(path: Path, entry: File) -> bool:
    if path.stat().st_size == entry.stored.size and pooch.file_hash(path) == entry.stored.sha256:
        return True
    return entry.contents is not None and _digest_of_contents(path, entry.name, entry.contents.size) == entry.contents


def _digest_of_contents(path: Path, name: str, size: int) -> Digest | None:
    """Returns the digest of the data in a gzip file, or None if it does not decompress.

    Compressed files of the same data differ with the compressor's version, level and clock. A `.gz` is therefore
    verified by its decompressed bytes. A `.tar.gz` is verified by the files directly in a folder `recordings`, sorted
    by name. The digest is taken over lines `<sha256>  <name>`, in the format of sha256sum. The sizes are added.

    Args:
      path: the file.
      name: its name, which ends with `.tar.gz` for archives.
      size: the recorded size in bytes. Decompression stops beyond it, or beyond twice the size for archives, since a
        small file could fill the memory.
    """
    try:
        if name.endswith(".tar.gz"):
            return _digest_of_recordings(path, 2 * size)
        with gzip.open(path, "rb") as file:
            return _digest_of_stream(file, size)
    except (OSError, EOFError, zlib.error, tarfile.TarError, _TooLargeError):
        return None


class _TooLargeError(Exception):
    """A file decompresses to more bytes than allowed."""


def _digest_of_stream(file: Any, limit: int) -> Digest:
    sha256, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        sha256.update(block)
        size += len(block)
        if size > limit:
            raise _TooLargeError
    return Digest(size, sha256.hexdigest())


def _digest_of_recordings(path: Path, limit: int) -> Digest:
    members: dict[str, Digest] = {}
    total = 0
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            total += member.size
            if total > limit:
                raise _TooLargeError
            name = PurePosixPath(member.name)
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and name.parent.name == "recordings":
                if name.name in members:
                    raise tarfile.ReadError(f"duplicate member {member.name}")
                members[name.name] = _digest_of_stream(file, member.size)
    lines = "".join(f"{members[name].sha256}  {name}\n" for name in sorted(members))
    return Digest(sum(digest.size for digest in members.values()), hashlib.sha256(lines.encode()).hexdigest())


def _look_up(dataset: str, file: str, registry: Mapping[str, Dataset]) -> File:
    for argument, name in (("dataset", dataset), ("file", file)):
        steps = PurePosixPath(name).parts
        if not steps or steps[0] == "/" or ".." in steps or any(mark in name for mark in "\\:\0"):
            raise UserError(f"{argument}: expected a plain name inside the data folder, got {name!r}")
    if dataset not in registry:
        raise UserError(f"dataset: expected one of {', '.join(sorted(registry))}, got {dataset!r}")
    files = registry[dataset].files
    if file not in files:
        raise UserError(f"file: expected one of {', '.join(sorted(files))} in {dataset}, got {file!r}")
    return files[file]


def _download(dataset: str, entry: File, path: Path, retry: RetryPolicy) -> None:
    """Downloads to a temporary file, verifies it and renames it to `path`. Safe in concurrent processes."""
    label = f"{dataset}/{entry.name}"
    advice = (
        f"put the file at {path} ({entry.stored.size:,} bytes, sha256 {entry.stored.sha256}), "
        "or give the folder that has it as <dataset>/<file> with --data_dir or $GRU_JAX_DATA"
    )
    if entry.by_hand:
        advice = f"{entry.by_hand}; {advice}"
    if not entry.urls:
        raise UserError(f"{label} is not at {path} and has no public URL: {advice}")
    _remove_stale(path)
    faults: list[UserError] = []
    for url in entry.urls:
        fault = _try_url(url, entry, path, label, retry)
        if fault is None:
            return
        faults.append(fault)
    reasons = "; ".join(f"{url}: {fault}" for url, fault in zip(entry.urls, faults, strict=True))
    raise type(faults[-1])(f"{label} could not be downloaded: {reasons}; {advice}")


def _try_url(url: str, entry: File, path: Path, label: str, retry: RetryPolicy) -> UserError | None:
    """Downloads from one URL, with retries. Returns the error, or None if the file is at `path`."""
    import requests  # slow to import, rarely needed

    fault: UserError | None = None
    for attempt in range(retry.attempts):
        if attempt:
            time.sleep(retry.backoff_s * 2 ** (attempt - 1))
        try:
            with _temporary_beside(path) as part:
                _transfer(url, part, entry, label, retry)
                if not _matches(part, entry):
                    return UserError(f"expected the recorded bytes, got others (sha256 {pooch.file_hash(part)})")
                part.replace(path)
            return None
        except UserError as error:
            return error
        except requests.RequestException as error:
            fault = UserError(_reason(error))
            status = None if error.response is None else error.response.status_code
            if status is not None and status < 500 and status not in (408, 429):
                return fault
        except OSError as error:  # network errors are wrapped by requests
            return UserError(f"cannot write {error.filename or path}: {error.strerror or error}")
    return fault


def _transfer(url: str, part: Path, entry: File, label: str, retry: RetryPolicy) -> None:
    """Writes the body of one response to `part` and flushes it to the disk."""
    # The same contents may be compressed differently, and archives may have other members.
    limit = entry.stored.size if entry.contents is None else 2 * (entry.stored.size + entry.contents.size)
    with part.open("wb") as file:
        with contextlib.ExitStack() as stack:
            sink = gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") if entry.compress else None
            sink = stack.enter_context(sink) if sink else file
            bar = tqdm(total=limit, desc=label, unit="B", unit_scale=True, leave=False, disable=None)
            stack.enter_context(bar)

            def on_response(answer: "requests.Response", **_: Any) -> None:
                stack.callback(answer.close)
                answer.raw.headers.pop("Content-Encoding", None)  # a .gz file is stored unchanged
                announced = answer.headers.get("Content-Length", "0")
                if not announced.isdecimal():
                    del answer.headers["Content-Length"]  # pooch cannot parse it
                elif answer.ok and int(announced) > limit:
                    raise UserError(f"expected at most {limit:,} bytes, got {int(announced):,}")

            request: dict[str, Any] = {
                "timeout": retry.timeout_s,
                "headers": _HEADERS,
                "hooks": {"response": on_response},
            }
            download = pooch.HTTPDownloader(progressbar=bar, **request)  # type: ignore[arg-type]  # a bar is allowed
            download(url, _GuardedFile(sink, limit, retry), None)
        file.flush()
        os.fsync(file.fileno())


class _GuardedFile:
    """A file for pooch to write to. Raises if the response is too long or too slow."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, limit: int, retry: RetryPolicy):
        self.file, self.limit, self.retry = file, limit, retry
        self.started, self.received = time.monotonic(), 0

    def write(self, block: bytes) -> None:
        import requests

        self.received += len(block)
        if self.received > self.limit:
            raise UserError(f"expected at most {self.limit:,} bytes, got more")
        self.file.write(block)
        elapsed = time.monotonic() - self.started
        if elapsed > self.retry.timeout_s and self.received < self.retry.min_bytes_per_s * elapsed:
            raise requests.Timeout(f"too slow: {self.received:,} bytes in {elapsed:.0f} s")

    def flush(self) -> None:
        """Does nothing, since pooch flushes after every block, which would spoil the compression."""


def _reason(fault: "requests.RequestException") -> str:
    """Returns the reason of a failed request in one line: the innermost wrapped error."""
    if fault.response is not None:
        return f"the server answered {fault.response.status_code} {fault.response.reason}"
    cause: Any = fault
    while isinstance(inner := getattr(cause, "reason", None) or (cause.args or (None,))[-1], Exception):
        cause = inner
    return " ".join(str(cause).split()) or type(cause).__name__


@contextlib.contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """Yields an unused path in the target's folder. Removes the file and empty new folders afterwards."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
        with contextlib.suppress(OSError):  # not empty: the download succeeded
            for folder in made:
                folder.rmdir()


def _remove_stale(target: Path) -> None:
    """Removes leftovers of downloads of this file that were killed more than a day ago."""
    for part in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_AFTER_S:
                part.unlink()
