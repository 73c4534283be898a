"""The command line's answers that need no service."""

import json

import pytest
from typer.testing import CliRunner

from bgpanet.data.readers import READERS, described
from services.cli import app
from services.commands.common import USAGE


def test_the_formats_are_listed_with_a_line_of_each() -> None:
    answer = CliRunner().invoke(app, ["dataset", "formats"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    told = {line.split()[0] for line in answer.stdout.splitlines() if line.strip()}
    assert told >= READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_of_a_format_all_is_told(name: str) -> None:
    assert CliRunner().invoke(app, ["dataset", "formats", name]).stdout == described()[name] + "\n"
    answer = CliRunner().invoke(app, ["dataset", "formats", name, "--json"])
    assert json.loads(answer.stdout) == {name: described()[name]}


def test_an_unknown_format_ends_with_those_that_are_known() -> None:
    answer = CliRunner().invoke(app, ["dataset", "formats", "tiff"])
    assert answer.exit_code == USAGE
    assert "unknown format 'tiff'" in answer.output
    assert all(name in answer.output for name in READERS)
