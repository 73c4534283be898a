"""The web application: API, dashboard, health."""

import contextlib
import secrets
from pathlib import Path

from flask import Flask, Response, jsonify, redirect, request
from werkzeug.wrappers import Response as BaseResponse

import bgpanet
from services import api, dashboard, openid, readiness, serving
from services.api import reference
from services.api.problems import handle_errors
from services.context import Context
from services.dashboard.errors import nowhere
from services.last_use import LastUse
from services.refusals import Refusals
from services.settings import Settings
from services.streams import Places
from services.telemetry import requests, tracing
from services.throttle import Throttle


def create_app(settings: Settings | None = None) -> Flask:
    """The application, ready for gunicorn: `services.web:create_app()`."""
    settings = settings or Settings.load()
    is_https = (settings.public_url or "").startswith("https://")
    app = Flask(__name__, static_folder=None, template_folder=None)
    context = Context(settings)
    app.extensions["bgpanet"] = context
    app.extensions["bgpanet_last_use"] = LastUse(context.database)
    app.extensions["bgpanet_throttle"] = Throttle(settings.requests_per_second, settings.requests_at_once)
    app.extensions["bgpanet_refusals"] = Refusals(context.database)
    app.extensions["bgpanet_streams"] = Places(settings.streams, settings.streams_per_token)
    app.config.update(
        SECRET_KEY=settings.session_key or _secret_key(settings.home / "session.key"),
        MAX_CONTENT_LENGTH=settings.body_bytes,
        SESSION_COOKIE_NAME="__Host-bgpanet" if is_https else "bgpanet",
        SESSION_COOKIE_SECURE=is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
    )
    if settings.openid is not None:
        app.config["BGPANET_OPENID"] = settings.openid.name
        app.extensions["bgpanet_openid"] = openid.client_of(app, settings.openid)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(api.create_blueprint())
    app.register_blueprint(reference.routes)
    app.register_blueprint(dashboard.create_blueprint())
    tracing.start(settings.traces_url, "api", bgpanet.__version__)
    requests.observe(app, serving.STARTED)
    _health(app)
    handle_errors(app, nowhere)
    app.after_request(_harden)
    if is_https:
        app.after_request(_only_https)
    return app


def _health(app: Flask) -> None:
    @app.get("/")
    def root() -> BaseResponse:
        return redirect("/overview")

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    parts = readiness.of(app.extensions["bgpanet"])

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        checks = parts.checks()
        ready = all(state == "ok" for state in checks.values())
        return jsonify({"status": "ok" if ready else "unavailable", "checks": checks}), 200 if ready else 503


def _harden(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault(
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    )
    if request.path.startswith("/api/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _only_https(response: Response) -> Response:
    """Browsers that were here once never ask in plain HTTP again."""
    response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


def _secret_key(path: Path) -> bytes:
    """The key that signs browser sessions; made once, mode 600, shared by all processes of one home."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(32))
        # Of two processes that start at once, the first link wins; both then read the same key.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    return path.read_bytes()
