"""`/settings/webhooks`: addresses that are told when jobs end, and what they were told."""

from typing import Literal, get_args

from flask import Blueprint, abort, flash, redirect, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.errors import InvalidInput, Problem
from services import webhooks
from services.asking import context, reader, writer
from services.dashboard import plain_forms
from services.dashboard.lists import template
from services.dashboard.plain_forms import Filled, Form
from services.dashboard.settings import shown
from services.errors import Conflict
from services.webhooks import DeliveryState, NewWebhook, WebhookChange

routes = Blueprint("webhooks", __name__, url_prefix="/settings/webhooks")
End = Literal["succeeded", "failed", "cancelled"]
ENDS: tuple[End, ...] = get_args(End)
STATES = get_args(DeliveryState)


class WebhookForm(Filled):
    """A webhook to make. states: the ends to hear of."""

    url: str = Field(max_length=2000)
    states: list[End]
    children: bool = False
    everyone: bool = False


@routes.get("")
def page() -> str:
    return _list(Form({"states": ENDS}))


@routes.post("")
def create() -> BaseResponse | tuple[str, int]:
    principal = writer()
    if plain_forms.was_sent():
        flash("This webhook was made already. Its secret is not shown again.")
        return redirect(url_for("dashboard.webhooks.page"), code=303)
    try:
        asked = plain_forms.read(WebhookForm)
        if asked.everyone and not principal.is_admin:
            abort(403, "only an admin's webhook may hear of the jobs of all users")
        new = NewWebhook(asked.url, asked.states, asked.children, asked.everyone)
        made, secret = webhooks.create(context().database, principal, new, context().settings.webhook_hosts)
    except InvalidInput as error:
        return _list(plain_forms.again(WebhookForm, error.problems)), 422
    except Conflict as error:
        return _list(plain_forms.again(WebhookForm, [Problem("", str(error))])), 409
    plain_forms.note_sent()
    return shown("settings_webhook_made.html", webhook=made, secret_value=secret), 201


@routes.get("/<webhook_id>")
def show(webhook_id: str) -> str:
    database, principal = context().database, reader()
    state = request.args.get("state")
    if state not in STATES:
        state = None
    told = webhooks.deliveries(database, principal, webhook_id, state, request.args.get("cursor"))
    return shown(
        template("settings_webhook"),
        webhook=webhooks.get(database, principal, webhook_id),
        deliveries=told.items,
        next_cursor=told.next_cursor,
        state=state,
        states=STATES,
    )


@routes.post("/<webhook_id>/off")
def switch_off(webhook_id: str) -> BaseResponse:
    webhooks.change(context().database, writer(), webhook_id, WebhookChange(active=False))
    flash("It is off: it is told nothing of what happens now, and what waits is held.")
    return _back(webhook_id)


@routes.post("/<webhook_id>/on")
def switch_on(webhook_id: str) -> BaseResponse:
    webhooks.change(context().database, writer(), webhook_id, WebhookChange(active=True))
    flash("It is on, and what was held is tried now.")
    return _back(webhook_id)


@routes.post("/<webhook_id>/remove")
def remove(webhook_id: str) -> BaseResponse:
    webhooks.remove(context().database, writer(), webhook_id)
    flash("The webhook was removed, with what it was yet to be told.")
    return redirect(url_for("dashboard.webhooks.page"), code=303)


@routes.post("/<webhook_id>/ping")
def ping(webhook_id: str) -> BaseResponse:
    webhooks.ping(context().database, writer(), webhook_id)
    flash("It is told something that is about no job; below is what becomes of it.")
    return _back(webhook_id)


@routes.post("/<webhook_id>/deliveries/<delivery_id>/repeat")
def repeat(webhook_id: str, delivery_id: str) -> BaseResponse:
    webhooks.repeat(context().database, writer(), webhook_id, delivery_id)
    flash("It is sent again, under the same id.")
    return _back(webhook_id)


def _back(webhook_id: str) -> BaseResponse:
    return redirect(url_for("dashboard.webhooks.show", webhook_id=webhook_id), code=303)


def _list(form: Form) -> str:
    found = webhooks.list_all(context().database, reader())
    return shown(
        "settings_webhooks.html", webhooks=found, form=form, once=plain_forms.once(), ends={end: end for end in ENDS}
    )
