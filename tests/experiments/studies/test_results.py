"""A study's numbers are read as they were written, or refused in one line."""

import pytest

from experiments.schema import ConfigError
from experiments.studies import results


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "studies" / "efficiency.json"
    assert results.read(tmp_path, "efficiency") is None
    path.parent.mkdir()
    path.write_text('{"seconds": 3}')
    assert results.read(tmp_path, "efficiency") == {"seconds": 3}
    path.write_text('{"seconds": ')
    with pytest.raises(ConfigError, match=rf"^{path} is damaged: [^\n]*$"):
        results.read(tmp_path, "efficiency")
