"""The command line of every command: the flag --config and its overrides, exit statuses, one-line errors.

A config file is a Python file with `get_config`, or the config.json of a run. `--config.<key>=<value>` overrides a key;
`with_overrides` parses the values of a sweep's grid in the same way.
"""

import ast
import dataclasses
import errno
import io
import json
import os
import pathlib
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.runner.config import ExperimentConfig, resolve
from experiments.runner.interruption import Interrupted, die_of_signals
from experiments.schema import UserError, check_keys

flags.disclaim_key_flags()  # so that --help shows --config as a flag of the command that defines it

CLOSED_PIPE = 128 + signal.SIGPIPE
"""Exit status if the reader of the output closed it. A shell reports SIGPIPE with the same status."""

SECTIONS = tuple(field.name for field in dataclasses.fields(ExperimentConfig))


def define_config() -> flags.FlagHolder:
    """Defines `--config=<file>[:variant]` and `--config.<key>=<value>`. `resolve` checks the keys later."""
    help_string = "configs/<name>.py, followed by :<variant> if it has variants, or the config.json of a run."
    try:
        flag = config_flags.DEFINE_config_file(
            "config", None, help_string, lock_config=False, accept_new_attributes=True
        )
    except flags.Error as error:  # an unreadable --flagfile
        _exit_with_usage_error(str(error).removeprefix("ERROR:: "))
    except UnicodeDecodeError as error:
        _exit_with_encoding_error(error)
    definition = flags.FLAGS["config"]
    definition.parser = _ConfigFileParser(definition.parser)
    return flag


def define_workdir(help: str) -> flags.FlagHolder[str]:
    """Defines --workdir, the folder of a finished run or an exported model. Several commands can be imported."""
    flag = flags.DEFINE_string("workdir", "", help, allow_override=True)
    flags.register_validator(flag, bool, "expected a run folder, such as runs/digits, got nothing")
    return flag


def define_data_dir() -> flags.FlagHolder[str | None]:
    """Defines --data_dir. Several commands that define it can be imported."""
    return flags.DEFINE_string(
        "data_dir", None, "The folder of the data sets. Default: $GRU_JAX_DATA, else a cache.", allow_override=True
    )


def define_data_file() -> flags.FlagHolder[str]:
    """Defines --data_file, for commands that read the data of a run. Several commands can be imported."""
    return flags.DEFINE_string(
        "data_file", "", "The path of your own text or CSV file, if it was moved.", allow_override=True
    )


def define_output_dir() -> flags.FlagHolder[str | None]:
    """Defines --output_dir, for commands that write files. Several commands can be imported."""
    return flags.DEFINE_string(
        "output_dir",
        None,
        "The folder of the written files. Default: the run folder; the current folder for an exported model.",
        allow_override=True,
    )


def config_of(flag: flags.FlagHolder) -> tuple[ExperimentConfig, str, list[str]]:
    """Returns the configuration given by the flags, the config file's name, and the overrides as "key=value"."""
    if flag.value is None:
        raise UserError("--config: expected a config file such as configs/digits.py, got nothing")
    parsed = flags.FLAGS[flag.name]
    overrides = [f"{key}={value}" for key, value in config_flags.get_override_values(parsed).items()]
    return resolve(flag.value), config_flags.get_config_filename(parsed), overrides


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, str]) -> Any:
    """Returns a ConfigDict with overrides, parsed as `--config.<key>=<value>` is.

    Args:
      values: the whole configuration, as nested dicts.
      overrides: values as text, by dotted key.

    Raises:
      UserError: a key has no section, or a value is not of the key's type.
    """
    arguments = ["", *(f"--config.{key}={text}" for key, text in overrides.items())]
    parser, config = flags.FlagValues(), _with_all_sections(ConfigDict(values))
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=parser, lock_config=False, accept_new_attributes=True, sys_argv=arguments
        )
        parser(arguments)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
        key = next((key for key in overrides if not _has_section(config, key)), None)
        if key is not None:
            raise UserError(f"{key}: expected a key of the configuration, got {key!r}") from None
        raise UserError(str(error).strip().splitlines()[-1].replace("--config.", "")) from None
    return parser["config"].value


def _has_section(config: ConfigDict, key: str) -> bool:
    """Returns whether all parts of a dotted key but the last one are sections of a configuration."""
    section: Any = config
    for part in key.split(".")[:-1]:
        section = section.get(part) if isinstance(section, ConfigDict) else None
    return isinstance(section, ConfigDict)


def run(main: Callable[[Sequence[str]], int | None], takes_words: bool = False) -> NoReturn:
    """Runs a command and exits.

    The exit status is what `main` returns, 1 for a `UserError`, a file or disk error or too little memory, and 2 for an
    invalid flag; each error is printed as one line. A signal gives the status of `Interrupted`. If the reader of the
    output closes it, as `head` does, the command exits silently with status 141. Characters that the output cannot
    encode are replaced.

    Args:
      main: receives the program's name and the positional arguments.
      takes_words: whether positional arguments are allowed. They are usually a flag that lost its "--" or "=".
    """

    def guarded(arguments: Sequence[str]) -> int | None:
        if len(arguments) > 1 and not takes_words:
            _exit_with_usage_error(f"expected flags alone, such as --config.seed=1, got the word {arguments[1]!r}")
        logging.set_verbosity(logging.FATAL)  # libraries also raise what they log
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

    _replace_unencodable_output()
    try:
        try:
            app.run(guarded, flags_parser=_parse)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        _discard_output()
        if error.errno == errno.EPIPE:
            sys.exit(CLOSED_PIPE)
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    raise AssertionError("app.run exits")


def one_line(text: str) -> str:
    """Returns a text with line ends and other unprintable characters, as in file names, escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def given(word: str) -> str:
    """Decodes an argument of the command line as UTF-8 or, if it is not UTF-8, in the locale's encoding."""
    try:
        return os.fsencode(word).decode()
    except UnicodeError:
        return word


class _ConfigFileParser(flags.ArgumentParser):
    """Loads a config file: a Python file with an optional variant, or the config.json of a run."""

    def __init__(self, python: flags.ArgumentParser):
        """Args: python: the parser of ml_collections, for Python files."""
        self.python = python

    def parse(self, path: str) -> Any:
        file, _, variant = path.partition(":")
        if not os.path.isfile(file):
            found = "is not a file" if os.path.exists(file) else "does not exist"
            raise UserError(f"--config: expected a config file, got {file!r}, which {found}")
        if not file.endswith((".py", ".json")):
            raise UserError(f"--config: expected a .py or .json file, got {file!r}")
        if file.endswith(".json") and variant:
            raise UserError(f"--config: expected no variant of a .json file, got {variant!r}")
        config = self.python.parse(path) if file.endswith(".py") else _read_json(file)
        if isinstance(config, ConfigDict):
            return _with_all_sections(config)
        found: Any = type(config).__name__
        try:
            hasattr(config, "task")  # ml_collections delays an OSError of the file until the first access
        except OSError as error:
            found = error.__cause__
        raise UserError(f"--config: expected get_config of {file} to return a ConfigDict, got {found}")


class _LiteralParser(flags.ArgumentParser):
    """Parses the override of a value that is None, since its type is unknown."""

    def parse(self, argument: str) -> Any:
        try:
            return ast.literal_eval(argument)
        except (SyntaxError, ValueError):
            return argument


config_flags.register_flag_parser_for_type(type(None), _LiteralParser())


def _with_all_sections(config: ConfigDict) -> ConfigDict:
    """Adds the sections that a configuration leaves out, so that their keys can be overridden."""
    for section in ("model", "optimizer", "train"):
        if section not in config:
            config[section] = ConfigDict()
    if isinstance(config.model, ConfigDict) and "cell_options" not in config.model:
        config.model.cell_options = ConfigDict()
    return config


def _read_json(path: str) -> ConfigDict:
    try:
        values = json.loads(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: expected the configuration of a run in JSON, got {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected the configuration of a run, a JSON object, got {json.dumps(values)[:40]}")
    return ConfigDict(_with_tuples(values))


def _with_tuples(values: Any) -> Any:
    """Returns JSON values with tuples for lists, since overrides are parsed by the type of the value."""
    if isinstance(values, dict):
        return {key: _with_tuples(value) for key, value in values.items()}
    return tuple(map(_with_tuples, values)) if isinstance(values, list) else values


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags. An invalid flag exits with status 2, --help with 0."""
    logging.set_verbosity(logging.FATAL)  # libraries also raise what they log
    try:
        return flags.FLAGS(list(arguments))
    except SystemExit:
        sys.exit(0)  # --help; absl exits with status 1
    except UnicodeDecodeError as error:
        _exit_with_encoding_error(error)
    except UserError as error:
        _exit_with_usage_error(error)
    except KeyError as error:
        _exit_with_usage_error(_unknown_section(arguments) or f"--config: unknown section {error.args[0]}")
    except (AttributeError, ImportError, NameError, SyntaxError) as error:
        _exit_with_usage_error(f"--config: expected a config file that runs, got {type(error).__name__}: {error}")
    except (flags.Error, OSError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # --help could not be printed
        _exit_with_usage_error(str(error).strip().splitlines()[-1].removeprefix("ERROR:: "))


def _unknown_section(arguments: Sequence[str]) -> str | None:
    """Returns the message for the first `--config.<section>.<key>` with an unknown section, or None."""
    words = [argument.partition("=")[0].lstrip("-").split(".") for argument in arguments]
    try:
        check_keys({word[1]: None for word in words if word[0] == "config" and len(word) > 2}, SECTIONS, "")
    except UserError as error:
        return str(error)
    return None


def _show_warning(message: Any, category: type[Warning], *place: Any) -> None:
    """Prints a warning as one line, without its place in the code. Developers run with -W error."""
    del category, place
    print(f"warning: {message}", file=sys.stderr)


def _show_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Shows an exception as Python does, except what TensorStore's threads raise after a failed write."""
    if kind is not RuntimeError or str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def _replace_unencodable_output() -> None:
    """Makes stdout and stderr replace characters that they cannot encode. A closed one discards all output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def _discard_output() -> None:
    """Redirects a full or closed output to /dev/null, so that Python's last flush does not fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _exit_with_encoding_error(error: UnicodeDecodeError) -> NoReturn:
    byte = error.object[error.start]
    _exit_with_usage_error(
        f"--flagfile: expected {error.encoding.upper()} text, got byte 0x{byte:02x} (offset {error.start})"
    )


def _exit_with_usage_error(message: Any) -> NoReturn:
    print(f"error: {one_line(str(message))}", file=sys.stderr)
    sys.exit(2)
