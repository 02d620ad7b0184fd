"""Data: look-up by checksum, download and cache (`fetch`); text and batching stand in modules of their own."""

from experiments.data.cache import fetch
from experiments.data.errors import ChecksumError, DataError, DownloadError, UnknownFileError
from experiments.data.registry import REGISTRY

__all__ = ["REGISTRY", "ChecksumError", "DataError", "DownloadError", "UnknownFileError", "fetch"]
