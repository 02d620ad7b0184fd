"""The output and the arguments of commands in any terminal, pipe and locale."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import files
from experiments.runner import cli
from experiments.runner.config import load, resolve

ROOT = pathlib.Path(__file__).parents[3]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale in which Python itself reads and writes ASCII."""

MANY, FEW = "for _ in range(9999): print('line')", "print('line')"


def run(program, stdout: int = subprocess.PIPE, **environment):
    """Runs a command with `program` as its `main`. Returns its status, and both outputs as bytes."""
    text = f"from experiments.runner import cli\ndef main(words):\n    {program}\ncli.run(main, True)"
    done = subprocess.run(
        [sys.executable, "-c", text],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("program", "environment"),
    [(MANY, {"PYTHONUNBUFFERED": "1"}), (MANY, {}), (FEW, {})],
    ids=["unbuffered", "in the middle", "at the end"],
)
def test_closed_output_ends_a_command_silently(program, environment):
    reading, writing = os.pipe()
    os.close(reading)
    status, _, stderr = run(program, writing, **environment)
    os.close(writing)
    assert (status, stderr) == (141, b"")


def test_help_with_closed_output_ends_silently():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.sample", "--help"], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_full_output_device_prints_one_line():
    with open("/dev/full", "wb") as full:
        status, _, stderr = run(FEW, full.fileno())
    assert (status, stderr) == (1, b"error: standard output: No space left on device\n")


def test_command_without_stdout_works():
    main = "lambda words: print(sys.stdout.write('line'), file=sys.stderr)"
    program = f"import sys; from experiments.runner import cli; cli.run({main})"
    closing = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, program]
    done = subprocess.run(closing, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, b"4\n")


def test_unencodable_characters_are_replaced():
    program = r"print('M\u00e4nner \u2603 \udcff')"
    assert run(program, **ASCII)[:2] == (0, b"M?nner ? ?\n")
    assert run(program, PYTHONUTF8="1")[:2] == (0, "Männer ☃ ?\n".encode())


def test_config_is_read_in_any_locale(tmp_path):
    config = resolve({"task": {"name": "char_lm", "text_file": "Männer ☃ \udcff.txt"}})
    files.write_json(tmp_path / "config.json", config.to_dict())
    program = "import pathlib; from experiments.runner.run_folder import RunFolder; "
    program += f"print(ascii(RunFolder(pathlib.Path({str(tmp_path)!r})).load_config().task.text_file))"
    status, stdout, stderr = run(program, **ASCII)
    assert status == 0, stderr
    assert stdout == rb"'M\xe4nner \u2603 \udcff.txt'" + b"\n"


def test_error_is_one_line_for_any_quoted_text():
    program = r"from experiments.schema import UserError; raise UserError('got a\nb\u2028c\x1b[31m \u00e4')"
    status, _, stderr = run(program, PYTHONUTF8="1")
    assert (status, stderr.decode()) == (1, "error: got a\\nb\\u2028c\\x1b[31m ä\n")


def test_arguments_are_decoded_as_utf8_in_any_locale():
    assert cli.given("Größe") == "Größe"
    words = "import sys; print(ascii(cli.given(words[0]) + cli.given(sys.argv[0])))"
    assert cli.given(os.fsdecode("Größe".encode())) == "Größe"
    status, stdout, _ = run(f"words = ['Gr\\udcc3\\udcb6\\udcc3\\udc9fe']; {words}", **ASCII)
    assert (status, stdout) == (0, b"'Gr\\xf6\\xdfe-c'\n")


def test_every_command_uses_cli_run():
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "experiments").rglob("*.py")}
    commands = {path.stem: text for path, text in texts.items() if '__name__ == "__main__"' in text}
    assert {"train", "sample", "report", "sweep", "benchmark", "efficiency", "ahead_of_time"} <= set(commands)
    assert [name for name, text in commands.items() if "cli.run(main" not in text] == []


def test_sequences_of_a_json_config_can_be_overridden(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(resolve(load("forecasting").get_config()).to_dict()))
    config = cli.with_overrides(cli._read_json(str(path)), {"task.quantiles": "(0.2, 0.5, 0.8)"})
    assert resolve(config).task.quantiles == (0.2, 0.5, 0.8)


@pytest.mark.parametrize("module", ["train", "sample"])
def test_binary_flagfile_prints_one_line(tmp_path, module):
    (tmp_path / "flags").write_bytes(b"--seed=1\n\xff\n")
    command = [sys.executable, "-m", f"experiments.{module}", f"--flagfile={tmp_path}/flags"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
    error = b"error: --flagfile: expected UTF-8 text, got byte 0xff (offset 9)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", error)
