"""An OpenID Connect provider on loopback that signs what a test wants: discovery, keys, and the exchange of a code."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

CLIENT, SECRET, CODE = "bgpanet", "the client's secret", "the code"


@dataclass
class Provider:
    """claims: of whoever signs in. changes: what is wrong with the next ID token. asked: what the browser came with."""

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    signed_with: RSAKey | None = None

    def authorize(self, address: str) -> str:
        """What the browser is sent back with, after it was sent to `address` and its owner agreed."""
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}" == self.issuer
        self.asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        back = urlsplit(self.asked["redirect_uri"])
        return f"{back.path}?code={CODE.replace(' ', '+')}&state={self.asked['state']}"

    def app(self) -> Flask:
        app = Flask("provider")

        @app.get("/.well-known/openid-configuration")
        def discovery() -> Response:
            return jsonify(
                issuer=self.issuer,
                authorization_endpoint=f"{self.issuer}/authorize",
                token_endpoint=f"{self.issuer}/token",
                jwks_uri=f"{self.issuer}/keys",
                response_types_supported=["code"],
                subject_types_supported=["public"],
                id_token_signing_alg_values_supported=["RS256"],
            )

        @app.get("/keys")
        def keys() -> Response:
            return jsonify(keys=[self.key.as_dict(private=False)])

        @app.post("/token")
        def token() -> tuple[Response, int]:
            digest = hashlib.sha256(request.form["code_verifier"].encode()).digest()
            proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            credentials = request.authorization
            is_client = credentials is not None and (credentials.username, credentials.password) == (CLIENT, SECRET)
            if request.form["code"] != CODE or proof != self.asked["code_challenge"] or not is_client:
                return jsonify(error="invalid_grant"), 400
            now = int(time.time())
            told = {"iss": self.issuer, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 60}
            told |= {"nonce": self.asked["nonce"], **self.claims, **self.changes}
            signed = jwt.encode({"alg": "RS256", "kid": "one"}, told, self.signed_with or self.key)
            return jsonify(access_token="unused", token_type="Bearer", id_token=signed), 200

        return app


@contextmanager
def provider() -> Iterator[Provider]:
    """One that listens until the block ends."""
    made = Provider()
    server = make_server("127.0.0.1", 0, made.app(), threaded=True)
    made.issuer = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
