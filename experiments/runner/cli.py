"""`--config`, as every entry point that takes one reads it: errors are one line, and config.json is a config too."""

import dataclasses
import errno
import io
import os
import pathlib
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.runner.config import ExperimentConfig, resolve
from experiments.runner.interruption import Interrupted, die_of_signals
from experiments.schema import UserError, refuse_unknown

flags.disclaim_key_flags()  # --config belongs to the entry point that defines it, so that its --help shows it

SAVED = pathlib.Path(__file__).resolve().parents[2] / "configs" / "saved.py"
CLOSED_PIPE = 128 + signal.SIGPIPE
"""Exit status where the reader of the output went away, as a shell reports that signal."""


def define_config() -> flags.FlagHolder:
    """Defines `--config=<file>[:variant]` and `--config.<key>=<value>`. Keys are checked later, by `resolve`."""
    help_string = "configs/<name>.py, with :<variant> where it has any, or the config.json of a run."
    try:
        return config_flags.DEFINE_config_file(
            "config", None, help_string, lock_config=False, accept_new_attributes=True
        )
    except flags.Error as error:  # it reads a --flagfile at once
        _refuse(str(error).removeprefix("ERROR:: "))
    except UnicodeDecodeError as error:
        _refuse_bytes(error)


def run(main: Callable[[Sequence[str]], int | None], takes_words: bool = False) -> NoReturn:
    """Runs an entry point. A refusal is printed as one line, with exit status 1; a flag that cannot be, with 2.

    A file or a disk that cannot be used is a refusal too; a signal has the status that `Interrupted` says. A reader of
    the output that goes away, such as `head`, ends the program without a word, with the status that SIGPIPE has in a
    shell, 141. A character that the output cannot show is replaced.

    Args:
      main: is given the program's name, and the words that belong to no flag.
      takes_words: whether there may be any; else they are refused, for a flag that lost its "--" or "=" is one.
    """

    def guarded(arguments: Sequence[str]) -> int | None:
        if len(arguments) > 1 and not takes_words:
            _refuse(f"expected flags alone, such as --config.seed=1, got the word {arguments[1]!r} beside them")
        logging.set_verbosity(logging.FATAL)  # libraries raise what they also log
        warnings.showwarning = _show_warning
        sys.excepthook = _show_exception
        die_of_signals()
        try:
            return main(arguments)
        except UserError as error:
            print(f"error: {one_line(str(error))}", file=sys.stderr)
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            return interrupted.status
        except OSError as error:
            if error.filename is None:
                raise
            print(f"error: {one_line(str(error.filename))}: {error.strerror}", file=sys.stderr)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"error: there is not enough memory: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 1

    _make_output_lenient()
    try:
        try:
            app.run(guarded, flags_parser=_parse)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        _drop_output()
        if error.errno == errno.EPIPE:
            sys.exit(CLOSED_PIPE)
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    raise AssertionError("app.run exits")


def _make_output_lenient() -> None:
    """Has both outputs replace what they cannot show; one that was closed before the start takes everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def _drop_output() -> None:
    """Has an output that can take no more take everything, so that Python's last flush does not fail on it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def one_line(text: str) -> str:
    """Returns a text with its line ends and other characters that do not print as escapes: what a file's names hold."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def given(word: str) -> str:
    """Returns a word of the command line as the text that it is in UTF-8 or, where it is none, in the locale."""
    try:
        return os.fsencode(word).decode()
    except UnicodeError:
        return word


def define_workdir(help: str) -> flags.FlagHolder[str]:
    """Defines --workdir, the folder of a finished run; programs that each define it can be imported side by side."""
    flag = flags.DEFINE_string("workdir", "", help, allow_override=True)
    flags.register_validator(flag, bool, "expected a run's folder, such as runs/digits, got nothing")
    return flag


def define_data_dir() -> flags.FlagHolder[str | None]:
    """Defines --data_dir; programs that each define it can be imported side by side."""
    return flags.DEFINE_string(
        "data_dir", None, "Where data sets are looked for; else $GRU_JAX_DATA, else a cache.", allow_override=True
    )


def config_of(flag: flags.FlagHolder) -> tuple[ExperimentConfig, str, list[str]]:
    """Returns what the command line asks for: the configuration, the config file as named, and its overrides."""
    if flag.value is None:
        raise UserError("--config: expected a config file such as configs/digits.py, got nothing")
    parsed = flags.FLAGS[flag.name]
    named = config_flags.get_config_filename(parsed).removeprefix(f"{SAVED}:")
    overrides = [f"{key}={value}" for key, value in config_flags.get_override_values(parsed).items()]
    return resolve(flag.value), named, overrides


def _show_warning(message: Any, category: type[Warning], *place: Any) -> None:
    """Prints a warning as one line; where in the program it arose is for programmers, who run with -W error."""
    del category, place
    print(f"warning: {message}", file=sys.stderr)


def _show_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Shows what Python shows, but for what TensorStore's threads add to a write that failed and is reported."""
    if kind is not RuntimeError or str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags; whatever goes wrong in it, a config file's own errors included, becomes one line."""
    try:
        rewritten = flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
    except flags.Error as error:
        _refuse(str(error).removeprefix("ERROR:: "))
    except UnicodeDecodeError as error:
        _refuse_bytes(error)
    for index, argument in enumerate(rewritten):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config"):
            if equals:
                rewritten[index] = f"--config={_config_file(value)}"
            elif index + 1 < len(rewritten):
                rewritten[index + 1] = _config_file(rewritten[index + 1])
        if flag.startswith("--config.") and flag.count(".") > 1:
            _refuse_unknown_section(flag.split(".")[1])
    try:
        return flags.FLAGS(rewritten)
    except SystemExit:
        sys.exit(0)  # --help was asked for and given; absl would call that a failure
    except KeyError as error:
        _refuse(f"{error}: the config file has no such part, so nothing in it can be overridden")
    except (AttributeError, ImportError, NameError, SyntaxError) as error:
        _refuse(f"--config: expected a config file that runs, got {type(error).__name__}: {error}")
    except (flags.Error, OSError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # from the output, to which --help is printed
        _refuse(str(error).strip().splitlines()[-1])


def _config_file(value: str) -> str:
    path, _, variant = value.partition(":")
    if not os.path.isfile(path):
        found = "no file" if os.path.exists(path) else "not there"
        _refuse(f"--config: expected a config file, got {path!r}, which is {found}")
    if not path.endswith((".py", ".json")):
        _refuse(f"--config: expected a .py or .json file, got {path!r}")
    if path.endswith(".py"):
        return value
    if variant:
        _refuse(f"--config: expected no variant of a .json file, got {variant!r}")
    return f"{SAVED}:{path}"


def _refuse_unknown_section(name: str) -> None:
    try:
        refuse_unknown({name: None}, [field.name for field in dataclasses.fields(ExperimentConfig)], "")
    except UserError as error:
        _refuse(error)


def _refuse_bytes(error: UnicodeDecodeError) -> NoReturn:
    byte = error.object[error.start]
    _refuse(f"--flagfile: expected {error.encoding.upper()} text, got byte 0x{byte:02x} (offset {error.start})")


def _refuse(message: Any) -> NoReturn:
    print(f"error: {one_line(str(message))}", file=sys.stderr)
    sys.exit(2)
