"""What every verb of the command line promises, found by walking them: an example that parses, words for every option,
`--json`; and that asking for help needs next to nothing."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from bgpanet.specs import Kind
from services.cli import app
from services.commands.common import STATUSES, USAGE
from services.commands.submit import KINDS

ROOT = Path(__file__).parents[3]
PARTS = ("up", "api", "worker", "scheduler", "migrate", "demo", "first-token", "secrets", "prepare", "alive")
"""Verbs that start or prepare a part on this host, and ask no service."""
HEAVY = ("torch", "httpx", "bgpanet.specs", "yaml", "numpy", "sqlalchemy", "flask", "celery")


def walked(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every verb with its words, such as `dataset add`."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from walked(inner, (*words, name))
    if not hasattr(command, "commands"):
        yield " ".join(words), command


ROOT_COMMAND: Any = typer.main.get_command(app)
VERBS = dict(walked(ROOT_COMMAND))


def parsed(words: list[str]) -> str:
    """Which verb a command line is of. Raises what typer raises where it is wrong; nothing is run."""
    command, context, found = ROOT_COMMAND, None, []
    while hasattr(command, "commands"):
        context = command.make_context(words[0], words[1:], parent=context)
        rest = [*context._protected_args, *context.args]
        name, command, left = command.resolve_command(context, rest)
        found.append(name)
        words = [name, *left]
    command.make_context(words[0], words[1:], parent=context)
    return " ".join(found)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_that_parses(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paragraphs = inspect.cleandoc(VERBS[verb].help or "").split("\n\n")
    examples = [" ".join(text.split()) for text in paragraphs if text.startswith("Example: bgpanet ")]
    wanted = (
        f"the docstring of `bgpanet {verb}` must have a paragraph of its own, after a blank line, that begins with "
        f"“Example: bgpanet {verb}” and holds one command that can be typed so (ID stands for an id)"
    )
    assert examples, wanted
    for example in examples:
        for file in re.findall(r"(?<= )(?:\./)?[\w-]+\.(?:zip|jpg|png|json|yaml)(?= |$)", example):
            Path(file).touch()  # some verbs look whether it is there
        try:
            found = parsed(shlex.split(example.removeprefix("Example: ")))
        except Exception as error:  # whatever typer says of it
            pytest.fail(f"{wanted}; of “{example}” typer says: {getattr(error, 'message', error)}")
        assert found == verb, wanted


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_in_its_first_line_what_it_does(verb: str) -> None:
    first = (VERBS[verb].help or "").strip().split("\n\n")[0]
    assert 10 <= len(first) <= 130, (
        f"`bgpanet {verb}`: the first paragraph of the docstring is what lists show: one line"
    )


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in PARTS])
def test_every_verb_answers_in_json_if_asked(verb: str) -> None:
    options = {option for parameter in VERBS[verb].params for option in parameter.opts}
    assert "--json" in options, f"`bgpanet {verb}` must take --json: `as_json: Json = False`, and `print_json` then"


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_told_in_words(verb: str) -> None:
    silent = [p.name for p in VERBS[verb].params if p.param_type_name == "option" and not p.help]
    assert silent == [], f"`bgpanet {verb}`: give these a help text: {', '.join(map(str, silent))}"


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_shown(verb: str) -> None:
    answer = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    assert ("Example: bgpanet" in answer.output) is bool(verb)


def test_an_example_that_is_wrong_is_found() -> None:
    for wrong in ("bgpanet cancl ID", "bgpanet cancel", "bgpanet cancel ID --colour red", "bgpanet priority ID high"):
        with pytest.raises(Exception, match=r"No such|Missing|valid integer"):
            parsed(shlex.split(wrong))
    assert parsed(shlex.split("bgpanet dataset show ham")) == "dataset show"


HELP = """
import sys
from services.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *[name for name in {heavy} if name in sys.modules])
"""


@pytest.mark.parametrize("words", [("--help",), ("submit", "--help"), ("dataset", "add", "--help")])
def test_help_imports_nothing_that_takes_long(words: tuple[str, ...]) -> None:
    code = HELP.replace("{heavy}", repr(HEAVY))
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_the_kinds_that_are_told_are_all_kinds() -> None:
    assert get_args(Kind) == KINDS


def test_exit_statuses_are_written_down() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert {int(status): what for status, what in re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M)} == STATUSES
    answer = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "1000"})
    assert all(f"{status} {what}" in " ".join(answer.output.split()) for status, what in STATUSES.items())


def test_a_wrong_command_says_what_is_right() -> None:
    answer = CliRunner().invoke(app, ["cancl", "x"])
    assert (answer.exit_code, "cancel" in answer.output) == (USAGE, True)


def test_without_a_service_the_message_says_what_to_do(tmp_path: Path) -> None:
    nowhere = {"BGPANET_HOME": str(tmp_path), "BGPANET_URL": "", "BGPANET_TOKEN": "", "COLUMNS": "200"}
    answer = CliRunner().invoke(app, ["jobs"], env=nowhere)
    assert (answer.exit_code, "start `bgpanet up`" in answer.output) == (3, True)
    told = CliRunner().invoke(app, ["jobs", "--json"], env=nowhere)
    assert json.loads(told.stderr) == {
        "error": "no address of a service: set BGPANET_URL and BGPANET_TOKEN, or start `bgpanet up`",
        "status": 3,
        "problem": {"detail": "no address of a service: set BGPANET_URL and BGPANET_TOKEN, or start `bgpanet up`"},
    }


@pytest.mark.parametrize("verb", ["migrate", "prepare", "first-token", "alive scheduler"])
def test_a_database_that_is_away_is_told_in_a_line(verb: str, tmp_path: Path) -> None:
    away = "postgresql+psycopg://bgpanet:hidden@127.0.0.1:1/bgpanet"
    nowhere = {"BGPANET_HOME": str(tmp_path), "BGPANET_DATABASE_URL": away, "COLUMNS": "1000"}
    answer = CliRunner().invoke(app, verb.split(), env=nowhere)
    assert answer.exit_code == 1
    assert "error: the database: " in answer.output
    assert "refused" in answer.output
    assert "hidden" not in answer.output
    assert len(answer.output.strip().splitlines()) == 1
