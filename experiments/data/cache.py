"""Where data files are looked up, and `fetch`, which gives the path of one whose bytes are as recorded."""

import functools
import os
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from experiments.data import digest
from experiments.data.download import PATIENCE, Patience, download
from experiments.data.errors import ChecksumError, DataError, DownloadError, UnknownFileError
from experiments.data.registry import REGISTRY, Dataset, File


def fetch(
    dataset: str,
    file: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    registry: Mapping[str, Dataset] = REGISTRY,
    patience: Patience = PATIENCE,
) -> Path:
    """Gives the path of a data file, after its checksum agreed; downloads it if it is not there.

    The file is `<folder>/<dataset>/<file>`, where the folder is `data_dir`, else `$GRU_JAX_DATA`, else the user's
    cache (`$XDG_CACHE_HOME/gru_jax`, `~/.cache/gru_jax`). A file with other bytes is replaced in the cache, with a
    warning; in a folder that the user named nothing that exists is ever overwritten, and it is an error.

    Args:
      dataset: name in the registry.
      file: name of one of its files.
      data_dir: the folder with all data sets; `None` or an empty string for the default.
      registry: the data sets that exist.
      patience: retries and time limits of a download.

    Raises:
      UnknownFileError: there is no such data set or file, or the name leaves its folder.
      ChecksumError: the bytes, there or downloaded, are not those that the registry records.
      DownloadError: the file is not there and cannot be downloaded or written.

    Example:
      >>> text = fetch("tiny_shakespeare", "input.txt").read_text(encoding="utf-8")
    """
    entry = _look_up(dataset, file, registry)
    named = os.fspath(data_dir) if data_dir else os.environ.get("GRU_JAX_DATA")
    folder = (Path(named).expanduser() if named else user_cache()).resolve()
    path = folder / dataset / file
    if not path.resolve().is_relative_to(folder / dataset):
        raise UnknownFileError(f"data file {path} is refused: it is a link to {path.resolve()}, outside its folder")
    if path.exists():
        try:
            if is_intact(path, entry):
                return path
            found = digest.of_bytes(path)
        except OSError as fault:
            raise DataError(f"cannot read {path}: {fault.strerror or fault}") from None
        what = f"{path} is not the recorded file: sha256 {entry.stored.sha256} expected, got {found.sha256}"
        if named:
            raise ChecksumError(f"{what}; delete it to have it downloaded again")
        warnings.warn(f"{what}; downloading it again", stacklevel=2)
    _download(dataset, entry, path, patience)
    return path


def user_cache() -> Path:
    """The folder of the user's cache where data sets are kept; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gru_jax"


def is_intact(path: Path, entry: File) -> bool:
    """Whether an existing file holds what the registry records; a file that did not change is read once per process."""
    state = path.stat()
    return _is_intact(path, entry, (state.st_ino, state.st_size, state.st_mtime_ns))


@functools.lru_cache(maxsize=1024)
def _is_intact(path: Path, entry: File, state: tuple[int, int, int]) -> bool:
    del state  # part of the key: another state of the file is another question
    return _holds(path, entry)


def _holds(path: Path, entry: File) -> bool:
    if digest.of_bytes(path) == entry.stored:
        return True
    if entry.contents is None:
        return False
    archive = entry.name.endswith(".tar.gz")
    # An archive may hold a little beside what counts; a single file is exactly as long as recorded.
    limit = 2 * entry.contents.size if archive else entry.contents.size
    return digest.of_contents(path, archive=archive, limit=limit) == entry.contents


def _look_up(dataset: str, file: str, registry: Mapping[str, Dataset]) -> File:
    for argument, name in (("dataset", dataset), ("file", file)):
        steps = PurePosixPath(name).parts
        if not steps or steps[0] == "/" or ".." in steps or any(mark in name for mark in "\\:\0"):
            raise UnknownFileError(f"{argument} must be a plain name inside the data folder, got {name!r}")
    if dataset not in registry:
        raise UnknownFileError(f"dataset must be one of {', '.join(sorted(registry))}, got {dataset!r}")
    files = registry[dataset].files
    if file not in files:
        raise UnknownFileError(f"file must be one of {', '.join(sorted(files))} in {dataset}, got {file!r}")
    return files[file]


def _download(dataset: str, entry: File, path: Path, patience: Patience) -> None:
    label = f"{dataset}/{entry.name}"
    advice = (
        f"put the file at {path} ({entry.stored.size:,} bytes, sha256 {entry.stored.sha256}), "
        "or name the folder that holds it as <dataset>/<file> with --data_dir or $GRU_JAX_DATA"
    )
    if entry.by_hand:
        advice = f"{entry.by_hand}; {advice}"
    if not entry.urls:
        raise DownloadError(f"{label} is not at {path}, and no public address serves it: {advice}")

    def check(part: Path) -> None:
        if not _holds(part, entry):
            raise ChecksumError(f"other bytes than recorded (sha256 {digest.of_bytes(part).sha256})")

    # The same contents may come compressed otherwise, and with a little beside them.
    limit = entry.stored.size if entry.contents is None else 2 * (entry.stored.size + entry.contents.size)
    try:
        download(entry.urls, path, label=label, limit=limit, compress=entry.compress, check=check, patience=patience)
    except (DownloadError, ChecksumError) as fault:
        raise type(fault)(f"{label} could not be downloaded: {fault}; {advice}") from None
