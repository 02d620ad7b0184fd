"""Converts a file of weights: `python -m gru_jax.interop --from model.onnx --to weights.safetensors`.

The ending of a file tells its format: `.safetensors` (of this library or a PyTorch state dict), `.onnx`, or `.pt` and
`.pth` (a PyTorch state dict). Weights are copied bit for bit, except for the two biases of PyTorch and ONNX, which are
added.
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from gru_jax import export
from gru_jax._stack import MERGES
from gru_jax._types import Params
from gru_jax.cells.elman import ACTIVATIONS
from gru_jax.interop import onnx, torch

OURS, ONNX, TORCH = (".safetensors",), (".onnx",), (".pt", ".pth")
READ_OPTIONS = {"prefix": TORCH + OURS, "nonlinearity": TORCH + OURS, "merge": ONNX}
WRITE_OPTIONS = {"lengths": ONNX, "h0": ONNX, "time_major": ONNX}
"""The files that an option is for."""

CLOSED_PIPE = 141
"""Exit status after SIGPIPE in a shell, for a reader of the output that was closed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. An error is one line on standard error and exit status 1."""
    given = vars(_parser().parse_args(arguments))
    with warnings.catch_warnings(), jax.enable_x64(True):  # float64 weights stay float64.
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _print_warning
        try:
            options_to = _chosen(given, WRITE_OPTIONS, given["to"])  # Checked before the file is read.
            cell, params = read(given["from"], _chosen(given, READ_OPTIONS, given["from"]))
            I, H, dtype = cell.infer_sizes(params)
            write(given["to"], cell, params, options_to)
        except BrokenPipeError:
            raise
        except (ImportError, OSError, TypeError, ValueError) as error:
            print(f"error: {_reason(error)}", file=sys.stderr)
            return 1
    print(f"{given['to']}: {cell}, I = {I}, H = {H}, {dtype}")
    return 0


def read(path: Path, options: dict[str, Any]) -> tuple[Any, Params]:
    """Reads a file of weights; options are those of the function that reads such files."""
    if path.suffix in OURS:
        return export.load_weights(path, **options)
    return (onnx.from_model if path.suffix in ONNX else torch.from_file)(path, **options)


def write(path: Path, cell: Any, params: Params, options: dict[str, Any]) -> None:
    """Writes a file of weights; options are those of the function that writes such files."""
    to_file = export.save_weights if path.suffix in OURS else onnx.to_file if path.suffix in ONNX else torch.to_file
    to_file(path, cell, params, **options)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gru_jax.interop", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from", type=Path, required=True, metavar="FILE", help="a .safetensors, .onnx, .pt or .pth")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the file to write, of the same formats")
    read_options = parser.add_argument_group("reading")
    read_options.add_argument("--prefix", help="read only names of a state dict with this prefix, e.g. encoder.rnn.")
    read_options.add_argument("--nonlinearity", choices=tuple(ACTIVATIONS), help="activation of a torch.nn.RNN")
    read_options.add_argument("--merge", choices=tuple(MERGES), help="how an .onnx file merges the last two directions")
    write_options = parser.add_argument_group("writing")
    for name in ("lengths", "h0"):
        write_options.add_argument(
            f"--{name}", action="store_true", default=None, help=f"add {name} to the inputs of an .onnx file"
        )
    write_options.add_argument(
        "--time_major", action="store_true", default=None, help="inputs of an .onnx file are (T, B, I), not (B, T, I)"
    )
    return parser


def _chosen(given: dict[str, Any], known: dict[str, tuple[str, ...]], path: Path) -> dict[str, Any]:
    """Returns the given options; raises ValueError for an option that is not for such a file."""
    endings = OURS + ONNX + TORCH
    if path.suffix not in endings:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(endings)}, got {path.suffix or 'no ending'}")
    options = {name: given[name] for name in known if given[name] is not None}
    for name in options:
        if path.suffix not in known[name]:
            raise ValueError(f"--{name}: expected only with a file that ends in {' or '.join(known[name])}, got {path}")
    return options


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _run() -> int:
    """Runs `main`. Exits quietly if the reader of the output, such as `head`, is closed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # The output may lack a character of a file name.
    try:
        try:
            return main()
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at exit.
        return CLOSED_PIPE


if __name__ == "__main__":
    sys.exit(_run())
