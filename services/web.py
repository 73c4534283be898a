"""The web application: API, dashboard, health."""

import contextlib
import secrets
from pathlib import Path

from flask import Flask, Response, jsonify, redirect, request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response as BaseResponse

from services import api, dashboard, queue
from services.api import reference
from services.api.problems import handle_errors
from services.context import Context
from services.errors import StorageError
from services.settings import Settings
from services.streams import Places


def create_app(settings: Settings | None = None) -> Flask:
    """The application, ready for gunicorn: `services.web:create_app()`."""
    settings = settings or Settings.load()
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.extensions["bgpanet"] = Context(settings)
    app.extensions["bgpanet_streams"] = Places(settings.streams, settings.streams_per_token)
    app.config.update(
        SECRET_KEY=_secret_key(settings.home / "session.key"),
        MAX_CONTENT_LENGTH=2 * 1024 * 1024,
        SESSION_COOKIE_NAME="bgpanet",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(api.create_blueprint())
    app.register_blueprint(reference.routes)
    app.register_blueprint(dashboard.create_blueprint())
    _health(app)
    handle_errors(app)
    app.after_request(_harden)
    return app


def _health(app: Flask) -> None:
    @app.get("/")
    def root() -> BaseResponse:
        return redirect("/overview")

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        context: Context = app.extensions["bgpanet"]
        checks: dict[str, str] = {}
        for name, check in (
            ("database", context.database.ping),
            ("redis", lambda: queue.unanswered(context.celery)),
            ("artifacts", lambda: context.store.exists("ready")),
        ):
            try:
                check()
                checks[name] = "ok"
            except (SQLAlchemyError, OperationalError, RedisError, StorageError, OSError) as error:
                checks[name] = type(error).__name__
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
