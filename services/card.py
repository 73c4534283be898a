"""A job as a small card of HTML, which needs nothing beside itself: notebooks show it.

Names and messages come from people, so every text is escaped.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from bgpanet.text import duration, figures_brief, share

COLOURS = {"succeeded": "#1a7f37", "failed": "#cf222e", "cancelled": "#6e7781", "paused": "#9a6700"}
RUNNING = "#0969da"
MOST_TEXT = 400  # letters of an error


def job_card(job: Mapping[str, Any], url: str) -> str:
    """The card of a job as the API shows it; url: the service's, whose page of the job it links."""
    colour = COLOURS.get(job["state"], RUNNING)
    lines = "".join(f'<div style="margin-top:.3em">{line}</div>' for line in _lines(job, colour))
    address = escape(f"{url}/jobs/{job['id']}", quote=True)
    return (
        '<div style="border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:.7em 1em;max-width:42em;'
        'font-family:system-ui,sans-serif;font-size:14px;line-height:1.4">'
        f"<div><b>{escape(job['name'])}</b> "
        f'<span style="background:{colour};color:#fff;border-radius:9px;padding:0 .6em">'
        f"{escape(_state(job))}</span></div>"
        f"{lines}"
        f'<div style="margin-top:.3em;font-size:12px;opacity:.7">{escape(_what(job))} · '
        f'<a href="{address}" rel="noopener">{escape(job["id"])}</a></div></div>'
    )


def _what(job: Mapping[str, Any]) -> str:
    return f"{job['kind']} on {job['dataset']}" if job["dataset"] else str(job["kind"])


def _state(job: Mapping[str, Any]) -> str:
    return f"{job['state']} ({job['reason']})" if job["reason"] else str(job["state"])


def _lines(job: Mapping[str, Any], colour: str) -> Iterator[str]:
    if job["state"] in ("queued", "running", "paused"):
        yield _bar(job["progress"], colour)
    if told := ", ".join(f"{count} {state}" for state, count in (job["children"] or {}).items() if count):
        yield escape(told)
    if job["summary"]:
        yield escape(figures_brief(job["summary"]))
    if job["error"]:
        text = job["error"] if len(job["error"]) <= MOST_TEXT else job["error"][:MOST_TEXT] + "…"
        yield f'<span style="color:{COLOURS["failed"]}">{escape(text)}</span>'


def _bar(progress: Mapping[str, Any], colour: str) -> str:
    percent = 100 * min(1.0, max(0.0, progress["fraction"]))
    told = [share(progress["fraction"])]
    if progress["epoch"]:
        told.append(f"epoch {progress['epoch']}/{progress['epochs']}")
    if progress["eta_seconds"] is not None:
        told.append(f"{duration(progress['eta_seconds'])} left")
    told.append(progress["message"] or "")
    return (
        f'<div style="background:rgba(128,128,128,.25);border-radius:4px;height:8px">'
        f'<div style="background:{colour};border-radius:4px;height:8px;width:{percent:.1f}%"></div></div>'
        f"{escape(' · '.join(filter(None, told)))}"
    )
