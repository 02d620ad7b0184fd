"""One file from one public address to one place on disk, whole and checked, or not at all."""

import contextlib
import gzip
import http.client
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from experiments.data.errors import ChecksumError, DownloadError

_BLOCK = 1 << 16
_STALE_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class Patience:
    """How long a server may take.

    Attributes:
      attempts: tries per address before the next address; only faults that may pass are tried again.
      timeout_s: for the connection and for every piece of an answer.
      pause_s: before the second try; doubled before each further one.
      slowest: bytes per second below which a transfer, once `timeout_s` has passed, is given up.
    """

    attempts: int = 3
    timeout_s: float = 30.0
    pause_s: float = 1.0
    slowest: float = 1000.0


PATIENCE = Patience()


class _Passing(Exception):
    """A fault that may be gone at the next try."""


def download(
    urls: tuple[str, ...],
    target: Path,
    *,
    label: str,
    limit: int,
    compress: bool,
    check: Callable[[Path], None],
    patience: Patience,
) -> None:
    """Downloads to a temporary name beside `target`, checks, and renames.

    `target` appears in one step and complete; several processes may do this at the same time.

    Args:
      urls: addresses, tried in turn. Nothing that a server says about the file's name is used.
      target: where the file goes. Its folder is made, but not for nothing.
      label: what to call the file in the progress bar (shown on a terminal only).
      limit: an answer with more bytes than this is refused.
      compress: the answer is gzipped when it is stored.
      check: called with the temporary file; raises `ChecksumError` where the bytes are wrong.
      patience: retries and time limits.

    Raises:
      DownloadError: with one reason for each address, or because the file cannot be written.
      ChecksumError: the last address served other bytes.
    """
    _sweep(target)
    faults: list[Exception] = []
    for url in urls:
        for attempt in range(patience.attempts):
            if attempt:
                time.sleep(patience.pause_s * 2 ** (attempt - 1))
            try:
                with _temporary(target) as part:
                    _transfer(url, part, label, limit, compress, patience)
                    check(part)
                    with _writing(target):
                        part.replace(target)
                _sync_folder(target.parent)
                return
            except _Passing as fault:
                last: Exception = fault
            except (DownloadError, ChecksumError) as fault:
                last = fault
                break
        faults.append(last)
    kind = ChecksumError if isinstance(faults[-1], ChecksumError) else DownloadError
    raise kind("; ".join(f"{url}: {fault}" for url, fault in zip(urls, faults, strict=True)))


def _transfer(url: str, part: Path, label: str, limit: int, compress: bool, patience: Patience) -> None:
    """Writes the answer of one address to `part` and to the disk."""
    started = time.monotonic()
    with _asking(url, patience.timeout_s) as answer, _writing(part), part.open("wb") as file:
        expected = _content_length(answer)
        if expected is not None and expected > limit:
            raise DownloadError(f"the answer has {expected:,} bytes, at most {limit:,} were expected")
        packed = gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") if compress else None
        received = 0
        with tqdm(total=expected, desc=label, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while block := _read(answer):
                received += len(block)
                if received > limit:
                    raise DownloadError(f"the answer has more than the expected {limit:,} bytes")
                (packed or file).write(block)
                bar.update(len(block))
                elapsed = time.monotonic() - started
                if elapsed > patience.timeout_s and received < patience.slowest * elapsed:
                    raise _Passing(f"too slow: {received:,} bytes in {elapsed:.0f} s")
        if expected is not None and received < expected:
            raise _Passing(f"the connection was cut after {received:,} of {expected:,} bytes")
        if packed is not None:
            packed.close()
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _asking(url: str, timeout_s: float) -> Iterator[http.client.HTTPResponse]:
    """Opens an address; says in a few words why it does not answer."""
    request = urllib.request.Request(url, headers={"User-Agent": "gru_jax", "Accept-Encoding": "identity"})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as fault:
        fault.close()
        kind = _Passing if fault.code >= 500 or fault.code in (408, 429) else DownloadError
        raise kind(f"the server answered {fault.code} {fault.reason}") from None
    except urllib.error.URLError as fault:
        raise _Passing(f"no connection ({fault.reason})") from None
    except (http.client.HTTPException, OSError) as fault:
        raise _Passing(f"no answer ({fault or type(fault).__name__})") from None
    with answer:
        yield answer


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(_BLOCK)
    except (http.client.HTTPException, OSError) as fault:
        raise _Passing(f"the connection failed ({fault or type(fault).__name__})") from None


def _content_length(answer: http.client.HTTPResponse) -> int | None:
    stated = answer.headers.get("Content-Length")
    return int(stated) if stated is not None and stated.isdecimal() else None


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A name in the target's folder that nobody else uses; nothing is left under it, nor folders made for nothing."""
    made = [folder for folder in target.parents if not folder.exists()]
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
        with contextlib.suppress(OSError):  # they are not empty: that is what they were made for
            for folder in made:
                folder.rmdir()


def _sweep(target: Path) -> None:
    """Removes what a download of this file, killed more than a day ago, left behind."""
    for part in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_AFTER_S:
                part.unlink()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise DownloadError(f"cannot write {fault.filename or path}: {fault.strerror or fault}") from None


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
