"""Who asks, and 403 for what their role or token does not allow: for the API's routes and the dashboard's alike.

Who came by a bearer token or a session is let in by `admit`, before all else.
"""

from typing import cast

from flask import Response, abort, current_app, g, request

from services.context import Context
from services.last_use import LastUse
from services.refusals import Refusals, is_refusal
from services.throttle import Throttle
from services.tokens import Principal


def context() -> Context:
    """The parts of the running application."""
    return cast(Context, current_app.extensions["bgpanet"])


def admit(principal: Principal) -> float:
    """Lets somebody in. Returns how many seconds their token must wait since it asked too often; 0: it need not."""
    g.principal = principal
    if principal.token_id is None:
        return 0.0
    cast(LastUse, current_app.extensions["bgpanet_last_use"]).saw(principal.token_id)
    return cast(Throttle, current_app.extensions["bgpanet_throttle"]).take(principal.token_id)


def note_refusal(response: Response) -> Response:
    """After every request: what somebody may not do is written into the audit trail."""
    principal = g.get("principal")
    if principal is not None and is_refusal(request.method, response.status_code):
        refusals = cast(Refusals, current_app.extensions["bgpanet_refusals"])
        refusals.note(principal, request.method, request.path, response.status_code)
    return response


def reader() -> Principal:
    """Who asks."""
    return cast(Principal, g.principal)


def writer() -> Principal:
    """Who asks; 403 for a viewer, and for a token without the scope `submit`."""
    if not reader().may_write:
        abort(403, "this needs a researcher's token with the scope `submit`")
    return reader()


def manager() -> Principal:
    """Who asks; 403 for a token without the scope `manage`."""
    if not reader().may_manage:
        abort(403, "this needs a token with the scope `manage`")
    return reader()


def admin() -> Principal:
    """Who asks; 403 for anyone but an admin."""
    if not reader().is_admin:
        abort(403, "this needs an admin's token")
    return reader()
