"""Trying a model on images that are dropped on its page: a worker answers while the request waits."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, render_template, request

from bgpanet.errors import InvalidInput
from services import models, trials
from services.asking import context, reader, writer
from services.dashboard.models import reference, shown
from services.errors import Busy, Conflict, NoAnswer, StorageError

routes = Blueprint("trying", __name__, url_prefix="/models")
SECONDS = 30  # within which a worker has to answer
LONGEST_CLASS = 200  # characters


@routes.post("/<model_id>/versions/<version>/try")
def post(model_id: str, version: str) -> tuple[str, int]:
    """The answers: the part of the page where its script asks for them, else the page with them."""
    writer()
    chosen = models.get_version(context().database, reader(), reference(model_id, version))
    answer, problems, status = None, [], 200
    try:
        answer = _answer(chosen)
    except InvalidInput as error:
        problems, status = [f"{one.where} {one.what}." for one in error.problems], 422
    except StorageError:
        problems, status = ["The artifact store does not answer; try again in a moment."], 503
    except (Conflict, Busy, NoAnswer) as error:
        status = {Conflict: 409, Busy: 429, NoAnswer: 504}[type(error)]
        problems = [f"{str(error)[:1].upper()}{str(error)[1:]}."]
    told: dict[str, Any] = {"answer": answer, "trial_problems": problems}
    if request.headers.get("X-Live"):
        return render_template("live/tried.html", chosen=chosen, **told), status
    return shown(model_id, chosen["id"], **told), status


def _answer(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Raises InvalidInput, Conflict, Busy, NoAnswer, StorageError."""
    # A form without a file sends one that has neither name nor content.
    files = [file for file in request.files.getlist("images") if file.filename]
    if problems := trials.problems_of(files):
        raise InvalidInput(problems)
    overlays, explained = "overlays" in request.form, request.form.get("explained", "")[:LONGEST_CLASS]
    asked = trials.Asked(overlays, (explained or None) if overlays else None, SECONDS)
    return trials.try_out(context(), reader(), chosen["id"], trials.sent(files), asked)
