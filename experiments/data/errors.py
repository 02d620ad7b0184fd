"""What can go wrong with a data file. Every message is one line that says which file and what to do."""


class DataError(Exception):
    """A data file cannot be had: the base of the errors below."""


class UnknownFileError(DataError, ValueError):
    """The registry knows no such data set or file, or the name would leave its folder."""


class ChecksumError(DataError):
    """The bytes are not those that the registry records."""


class DownloadError(DataError):
    """The file is not there and could not be downloaded to where it belongs."""
