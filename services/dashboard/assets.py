"""plotly's script, from the installed package: no browser that looks at us talks to another host."""

import gzip
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, abort, request, url_for

routes = Blueprint("assets", __name__)


def plotly_address() -> str:
    """The script's address, which changes with its version."""
    return url_for("dashboard.assets.plotly", version=importlib.metadata.version("plotly"))


@routes.get("/static/vendor/plotly-<version>.min.js")
def plotly(version: str) -> Response:
    if version != importlib.metadata.version("plotly"):
        abort(404, "another version of plotly is installed")
    zipped = request.accept_encodings.quality("gzip") > 0
    response = Response(_script(zipped), mimetype="text/javascript")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    response.headers["Vary"] = "Accept-Encoding"
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    return response


@cache
def _script(zipped: bool) -> bytes:
    # Found without importing the package, of which nothing else is used.
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the package plotly is missing; install bgpanet-service[api]")
    script = Path(found.origin).with_name("package_data") / "plotly.min.js"
    return gzip.compress(script.read_bytes(), mtime=0) if zipped else script.read_bytes()
