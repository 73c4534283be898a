"""What is shown of a job to whoever waits for it: bars, lines, or a card that is replaced."""

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from services import progress
from services.client import Client, JobHandle
from services.progress import JobBars, JobLines, display, shown


def job(state: str = "running", fraction: float = 0.25, name: str = "train [bold]x[/]") -> JobHandle:
    """A job as the API shows it, as far as it is looked at here."""
    values = {
        "id": "j",
        "name": name,
        "kind": "train",
        "dataset": "lesions",
        "state": state,
        "reason": None,
        "error": None,
        "children": None,
        "summary": {},
        "progress": {"fraction": fraction, "epoch": 2, "epochs": 8, "eta_seconds": 65.0, "message": ""},
    }
    return JobHandle(Client("http://127.0.0.1:1", "t"), values)


@pytest.fixture
def written() -> Console:
    return Console(file=io.StringIO(), width=200)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_lines_and_a_terminal_bars(written: Console) -> None:
    assert isinstance(display(written), JobLines)
    assert isinstance(display(Console(file=io.StringIO(), force_terminal=True)), JobBars)


def test_lines_come_with_every_state_and_now_and_then_between(
    written: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "monotonic", lambda: clock.now)
    with display(written) as lines:
        lines.update(job("queued", 0))
        for fraction in (0.0, 0.1, 0.2):
            lines.update(job(fraction=fraction))
        clock.now += 11
        lines.update(job(fraction=0.5))
        lines.update(job("succeeded", 1.0))
    assert text(written).splitlines() == [
        "train [bold]x[/]: 0%  queued",
        "train [bold]x[/]: 0%  running  epoch 2/8  1 min 05 s left",
        "train [bold]x[/]: 50%  running  epoch 2/8  1 min 05 s left",
        "train [bold]x[/]: 100%  succeeded",
    ]


def test_a_file_on_its_way_is_told_at_its_beginning_and_end(written: Console) -> None:
    with display(written) as lines:
        for there in (1_000_000, 2_000_000, 4_000_000):
            lines.sent("upload a.zip", there, 4_000_000)
    assert text(written).splitlines() == ["upload a.zip: 1 of 4 MB", "upload a.zip: 4 of 4 MB"]


def test_bars_show_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    with display(console) as bars:
        bars.update(job())
        bars.sent("empty", 0, 0)
    assert "train [bold]x[/]" in text(console)
    assert "25%" in text(console)


def test_in_a_pipe_nothing_is_said_unless_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    for asked, said in ((None, False), (False, False), (True, True)):
        with shown(asked) as show:
            show(job())
        assert bool(capfd.readouterr().err) is said


def test_a_notebook_shows_one_card_and_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, str]] = []

    def show(thing: Any, display_id: bool) -> Any:
        assert display_id
        drawn.append(("new", thing._repr_html_()))
        return SimpleNamespace(update=lambda thing: drawn.append(("again", thing._repr_html_())))

    shell = SimpleNamespace(kernel=object())
    notebook: Any = {
        "IPython": SimpleNamespace(get_ipython=lambda: shell),
        "IPython.display": SimpleNamespace(display=show),
    }
    for name, module in notebook.items():
        monkeypatch.setitem(sys.modules, name, module)
    with shown(None) as tell:
        tell(job())
        tell(job("succeeded", 1.0))
    assert [how for how, _ in drawn] == ["new", "again"]
    assert "25.0 %" in drawn[0][1]
    assert "succeeded" in drawn[1][1]
    assert "train [bold]x[/]" in drawn[0][1]
