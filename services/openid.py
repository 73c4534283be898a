"""Signing in by OpenID Connect (authorization code with PKCE), through Authlib: whom a provider's claims mean here."""

from collections.abc import Mapping
from typing import Any

from authlib.integrations.flask_client import FlaskOAuth2App, OAuth
from flask import Flask

from services.errors import Forbidden
from services.settings import OpenID
from services.tokens import ROLES, Role

EVERYONE = "*"
TIMEOUT_SECONDS = 10
LONGEST_NAME = 200


def client_of(app: Flask, openid: OpenID) -> FlaskOAuth2App:
    """What asks the provider. Its addresses and keys are read when they are needed first."""
    return OAuth(app).register(
        "openid",
        client_id=openid.client_id,
        client_secret=openid.client_secret,
        server_metadata_url=f"{openid.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": openid.scope,
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT_SECONDS,
        },
    )


def person(openid: OpenID, claims: Mapping[str, Any]) -> tuple[str, Role]:
    """The user and role that the claims of a checked ID token mean: the highest role of the groups that they name.

    Raises:
        Forbidden: they name nobody, an address that the provider has not verified, or no group that may come in.
    """
    user = claims.get(openid.user_claim)
    if not isinstance(user, str) or not 0 < len(user) <= LONGEST_NAME or user.startswith("~"):
        raise Forbidden(f"the provider told no usable `{openid.user_claim}`")
    if openid.user_claim == "email" and claims.get("email_verified") is not True:
        raise Forbidden(f"the provider has not verified the address {user}")
    told = claims.get(openid.groups_claim)
    groups = {EVERYONE, *([told] if isinstance(told, str) else told if isinstance(told, list) else [])}
    roles = [role for group, role in openid.roles if group in groups]
    if not roles:
        raise Forbidden(f"{user} is in no group that may sign in here; ask whoever runs this service")
    return user, max(roles, key=ROLES.index)
