"""Whatever README and documentation tell people to type exists, with these options and names."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import settings
from tests.support.deployment import ROOT, compose
from tests.unit.services.test_cli_verbs import ROOT_COMMAND, parsed

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docker-compose.yml",
    *sorted((ROOT / "docs").glob("*.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(text: str) -> Iterator[str]:
    """Lines of shell in fenced blocks; a line that goes on is one."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if language in ("", "sh"):
            yield from block.replace("\\\n", " ").splitlines()


def spans(text: str) -> list[str]:
    """What stands in backticks in running text."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def called(line: str, command: str) -> Iterator[list[str]]:
    """The words of each call of a command in a line of shell, without the command itself."""
    elsewhere = r"(?:docker compose (?:run|exec) .*?\s|kubectl .*? -- )?"
    begin = rf"(?:^|[(|;&])\s*(?:\w+=[^\s(]+ +)*{elsewhere}(?:[\w./]+/)?"
    for found in re.finditer(rf"{begin}{re.escape(command)}(?= )", line):
        rest = line[found.end() :]
        if found[0].startswith("("):
            rest = rest.partition(")")[0]
        lexer = shlex.shlex(rest, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split, words = True, []
        for word in lexer:
            if set(word) <= set("|;&<>"):
                break
            words.append(word)
        yield words


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """The verb that the first words name, and the words behind."""
    command, rest = ROOT_COMMAND, list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    return command, rest


def unknown_options(words: list[str]) -> list[str]:
    command, rest = verb_of(words)
    known = {"--help"} | {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    return [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]


@each_page
def test_every_command_line_parses(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in blocks(page.read_text(encoding="utf-8")):
        for words in called(line, "bgpanet"):
            words = [word for word in words if word != "…"]
            for file in (word for word in words if re.search(r"\w\.(zip|jpg|png|json|yaml)$", word)):
                Path(file).parent.mkdir(parents=True, exist_ok=True)  # some verbs look whether it is there
                Path(file).touch()
            try:
                parsed(["bgpanet", *words])
            except Exception as error:  # whatever typer says of it
                pytest.fail(f"{page.name}: `{line.strip()}`: {getattr(error, 'message', error)}")


@each_page
def test_every_verb_in_running_text_is_there_with_its_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = spans(text) if page.suffix == ".md" else re.findall(r"`(bgpanet [^`]+)`", text)
    for span in found:
        for words in called(span, "bgpanet"):
            command, rest = verb_of(words)
            if command is ROOT_COMMAND:
                assert rest[0] in ("VERB", "--help", "--install-completion"), f"{page.name}: `{span}`"
            elif hasattr(command, "commands"):
                assert not rest, f"{page.name}: `{span}`"
            assert unknown_options(words) == [], f"{page.name}: `{span}`"


@each_page
def test_every_target_module_and_service_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [*blocks(text), *spans(text)]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    services: dict[str, Any] = compose()["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", ())}
    for line in lines:
        for words in called(line, "make"):
            assert {word for word in words if re.fullmatch(r"[a-z]+", word)} <= targets, f"{page.name}: `{line}`"
        for module in re.findall(r"python3? -m ([\w.]+)", line):
            assert importlib.util.find_spec(module) is not None, f"{page.name}: `{line}`"
        assert set(re.findall(r"--scale ([\w-]+)=", line)) <= services.keys(), f"{page.name}: `{line}`"
        for words in called(line, "docker compose run"):
            assert services.keys() & set(words), f"{page.name}: `{line}`"
        for words in called(line, "docker compose exec"):
            assert words[0] in services, f"{page.name}: `{line}`"
        if "docker compose" in line:
            assert set(re.findall(r"--profile (\w+)", line)) <= profiles, f"{page.name}: `{line}`"


@each_page
def test_every_variable_is_one_that_something_reads(page: Path) -> None:
    read = set(re.findall(r"\bBGPANET_\w+", Path(settings.__file__).read_text(encoding="utf-8")))
    read |= {f"BGPANET_OPENID_{name}" for name in ("CLIENT_ID", "CLIENT_SECRET")}  # put together there
    told = {name.removesuffix("_FILE") for name in re.findall(r"\bBGPANET_[A-Z0-9_]+\b", page.read_text("utf-8"))}
    assert told - read - {"BGPANET_TEST_DATA"} == set()


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "wrong.md"
    for text in (
        "job=$(bgpanet submit train --colour red)",
        "bgpanet workr | cat",
        "bgpanet cancel  # no id",
        "docker compose exec api bgpanet doktor",
    ):
        page.write_text(f"```sh\n{text}\n```\n", encoding="utf-8")
        with pytest.raises(pytest.fail.Exception, match=r"wrong\.md"):
            test_every_command_line_parses(page, tmp_path, monkeypatch)
    for text in ("`bgpanet workr`", "`bgpanet worker --gpu 4`", "`bgpanet dataset shw ham`"):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError):
            test_every_verb_in_running_text_is_there_with_its_options(page)
    for text in (
        "`make tee`",
        "`python -m benchmarks.nothing`",
        "`docker compose up --scale wrker=4`",
        "`docker compose exec apy bgpanet doctor`",
    ):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError):
            test_every_target_module_and_service_is_there(page)
    page.write_text("BGPANET_LEASE_SECOND=4", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_every_variable_is_one_that_something_reads(page)
