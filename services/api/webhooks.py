"""`/api/v1/webhooks`: who is told when jobs end."""

from flask import Response, abort, jsonify, url_for

from bgpanet.errors import InvalidInput, Problem
from services import webhooks
from services.api import answers
from services.api.documentation import Section, documented
from services.api.parsing import DeliveriesQuery, WebhookBody, WebhookPatch, parse_body, parse_query
from services.asking import context, reader, writer
from services.webhooks import NewWebhook, WebhookChange

routes = Section(
    "webhooks",
    __name__,
    url_prefix="/webhooks",
    tags={"webhooks": "Addresses that are told when jobs end, and what they were told"},
    paths={"webhook_id": ("id of a webhook", answers.ID), "delivery_id": ("id of a delivery", answers.ID)},
)
FIXED = Problem("url", "can't be changed, since the secret belongs to it; make another webhook and remove this one")


@routes.post("")
@documented({201: answers.NewWebhook}, body=WebhookBody, problems=[409])
def post_webhook() -> tuple[Response, int, dict[str, str]]:
    """Make a webhook.

    It is told, by a signed POST, when jobs of its owner end. The secret that signs is shown this once.
    """
    principal, body = writer(), parse_body(WebhookBody)
    if body.everyone and not principal.is_admin:
        abort(403, "only an admin's webhook may hear of the jobs of all users")
    asked = NewWebhook(body.url, body.states, body.children, body.everyone)
    made, secret = webhooks.create(context().database, principal, asked, context().settings.webhook_hosts)
    location = url_for("api.webhooks.get_webhook", webhook_id=made["id"])
    return jsonify({**made, "secret": secret}), 201, {"Location": location}


@routes.get("")
@documented({200: answers.Page[answers.Webhook]})
def get_webhooks() -> Response:
    """List one's webhooks, newest first; an admin sees those of all users."""
    return jsonify({"items": webhooks.list_all(context().database, reader()), "next_cursor": None})


@routes.get("/<webhook_id>")
@documented({200: answers.Webhook})
def get_webhook(webhook_id: str) -> Response:
    """Show a webhook, without its secret."""
    return jsonify(webhooks.get(context().database, reader(), webhook_id))


@routes.patch("/<webhook_id>")
@documented({200: answers.Webhook}, body=WebhookPatch)
def patch_webhook(webhook_id: str) -> Response:
    """Switch a webhook off or on, or change what it hears of.

    While it is off no end is written down for it, and what waits is held; when it is on again, that is tried at once.
    """
    principal = writer()
    try:
        asked = WebhookChange(**parse_body(WebhookPatch).model_dump())
    except InvalidInput as error:
        raise InvalidInput(FIXED if each.where == "url" else each for each in error.problems) from None
    return jsonify(webhooks.change(context().database, principal, webhook_id, asked))


@routes.delete("/<webhook_id>")
@documented({204: None})
def delete_webhook(webhook_id: str) -> tuple[str, int]:
    """Remove a webhook, with what it was told and was yet to be told."""
    webhooks.remove(context().database, writer(), webhook_id)
    return "", 204


@routes.post("/<webhook_id>/ping")
@documented({202: answers.Delivery}, problems=[409])
def post_ping(webhook_id: str) -> tuple[Response, int]:
    """Try a webhook out, unless it is off: it is told something that is about no job."""
    return jsonify(webhooks.ping(context().database, writer(), webhook_id)), 202


@routes.get("/<webhook_id>/deliveries")
@documented({200: answers.Page[answers.Delivery]}, query=DeliveriesQuery)
def get_deliveries(webhook_id: str) -> Response:
    """List what a webhook was told and is yet to be told, newest first."""
    query = parse_query(DeliveriesQuery)
    page = webhooks.deliveries(context().database, reader(), webhook_id, query.state, query.cursor, query.limit)
    return jsonify({"items": page.items, "next_cursor": page.next_cursor})


@routes.post("/<webhook_id>/deliveries/<delivery_id>/repeat")
@documented({202: answers.Delivery}, problems=[409])
def post_repeat(webhook_id: str, delivery_id: str) -> tuple[Response, int]:
    """Make a delivery again, under the same id, whatever became of it; unless its webhook is off."""
    return jsonify(webhooks.repeat(context().database, writer(), webhook_id, delivery_id)), 202
