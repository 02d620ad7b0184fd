"""The workflows and forms of the repository: valid for the service that reads them, and on targets that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def is_valid(schema: str, *paths: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)]
    return subprocess.run(command, capture_output=True).returncode == 0


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
    ids=["workflows", "forms", "config"],
)
def test_files_match_their_schema(schema, paths):
    assert paths
    assert is_valid(schema, *paths)


def test_schema_finds_a_misspelled_key(tmp_path):
    broken = WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on", "runs_on")
    (tmp_path / "broken.yml").write_text(broken, encoding="utf-8")
    assert not is_valid("github-workflows", tmp_path / "broken.yml")


def test_workflows_call_targets_of_the_makefile():
    called = set()
    for path in WORKFLOWS:
        for job in YAML(typ="safe").load(path)["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {}).get("target", [])
            for step in job["steps"]:
                for name in re.findall(r"make (\$\{\{.*?\}\}|\S+)", step.get("run", "")):
                    called |= set(matrix) if name.startswith("${{") else {name}
    assert called <= targets()
    assert {"lint", "test", "test-slow", "docs", "test-install"} <= called


def test_ci_runs_targets_of_the_makefile():
    called = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert called
    assert set(called) <= targets()


def test_forms_ask_for_a_program_and_the_environment():
    for path in FORMS:
        fields = {field["id"]: field["attributes"] for field in YAML(typ="safe").load(path)["body"]}
        assert fields["program"]["render"] == "python"
        assert "jax.print_environment_info()" in fields["environment"]["description"]
