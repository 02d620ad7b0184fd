"""Fingerprints of files: by their bytes, and by what a compressed file holds.

Two archives of the same data rarely agree byte for byte, for the compressor writes its own version, level and
clock into them. Such a file is known by its contents: a `.gz` by its decompressed bytes, a `.tar.gz` by the names
and bytes of the members that matter.
"""

import gzip
import hashlib
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """A length in bytes and a sha256 in hexadecimal."""

    size: int
    sha256: str


def of_bytes(path: Path) -> Digest:
    """The fingerprint of a file as it lies on disk."""
    with path.open("rb") as file:
        return _of_stream(file, limit=None)


def of_contents(path: Path, *, archive: bool, limit: int) -> Digest | None:
    """The fingerprint of what a gzip file holds, or None if it does not decompress.

    Args:
      path: the file.
      archive: it holds a tar archive. What counts are the files directly in a folder `recordings`, in the order of
        their names: the digest is that of the lines `<sha256>  <name>`, as sha256sum prints them, and the size is
        the sum of theirs.
      limit: reading stops with None past this many decompressed bytes, so that a small file cannot fill the memory
        or take forever.
    """
    try:
        if archive:
            return _of_recordings(path, limit)
        with gzip.open(path, "rb") as file:
            return _of_stream(file, limit)
    except (OSError, EOFError, zlib.error, tarfile.TarError, _TooLarge):
        return None


class _TooLarge(Exception):
    """More bytes than were allowed."""


def _of_stream(file: BinaryIO | gzip.GzipFile, limit: int | None) -> Digest:
    sha256, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        sha256.update(block)
        size += len(block)
        if limit is not None and size > limit:
            raise _TooLarge
    return Digest(size, sha256.hexdigest())


def _of_recordings(path: Path, limit: int) -> Digest:
    members: dict[str, Digest] = {}
    total = 0
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            total += member.size
            if total > limit:
                raise _TooLarge
            name = PurePosixPath(member.name)
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and name.parent.name == "recordings":
                if name.name in members:
                    raise tarfile.ReadError(f"{member.name} is there twice")
                members[name.name] = _of_stream(file, member.size)  # type: ignore[arg-type]
    lines = "".join(f"{members[name].sha256}  {name}\n" for name in sorted(members))
    return Digest(sum(digest.size for digest in members.values()), hashlib.sha256(lines.encode()).hexdigest())
