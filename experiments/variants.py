"""The variants of a config file: its settings, each for every cell, and "smoke".

A setting alone is the GRU's; `<setting>-lstm` and `<setting>-elman` are the same experiment with those cells, of a
width that gives as many parameters, which each config file states. "smoke" is the first setting at seconds' size.
"""

CELLS = ("gru", "lstm", "elman")


def of_settings(*settings: str) -> tuple[str, ...]:
    """Returns the names of all variants.

    Example:
      >>> of_settings("t200")
      ('t200', 't200-lstm', 't200-elman', 'smoke')
    """
    return (*(setting + suffix for setting in settings for suffix in ("", "-lstm", "-elman")), "smoke")


def choose(config_file: str, known: tuple[str, ...], variant: str) -> tuple[str, str, bool]:
    """Takes a variant's name apart.

    Args:
      config_file: whose variant it is, for the message.
      known: the names that there are, from `of_settings`.
      variant: one of them.

    Returns:
      setting, cell, and whether it is the smoke variant.

    Raises:
      ValueError: it is none of them.
    """
    if variant not in known:
        raise ValueError(f"{config_file}: expected one of {', '.join(known)}, got {variant!r}")
    smoke = variant == "smoke"
    setting, _, cell = (known[0] if smoke else variant).partition("-")
    return setting, cell or "gru", smoke
