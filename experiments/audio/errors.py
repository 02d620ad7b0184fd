"""What can go wrong with a file of speech."""

from experiments.data.fetch import DataError


class AudioError(DataError):
    """A file of speech that cannot be used; the message is one line."""
