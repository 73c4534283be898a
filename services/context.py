"""What every part of the control plane works with: settings, database, artifact store, Celery app."""

from dataclasses import dataclass
from functools import cached_property

from celery import Celery

from services.artifacts import ArtifactStore, open_store
from services.database import Database
from services.queue import make_app
from services.settings import Settings


@dataclass(frozen=True)
class Context:
    """The parts, each opened when it is first used."""

    settings: Settings

    @cached_property
    def database(self) -> Database:
        return Database(self.settings.database_url)

    @cached_property
    def store(self) -> ArtifactStore:
        settings = self.settings
        return open_store(
            settings.artifacts_url, s3_endpoint_url=settings.s3_endpoint_url, s3_public_url=settings.s3_public_url
        )

    @cached_property
    def celery(self) -> Celery:
        return make_app(self.settings)
