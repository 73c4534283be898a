"""Every error that the control plane raises on purpose.

ServiceError
├── NotFound            what was named does not exist, or is not yours
├── Forbidden           who asks sees it, but may not do this
├── Conflict            what was asked for contradicts what is there
├── Busy                as much waits as may; later there is room again
├── Damaged             what arrived is not what was announced; nothing of it is kept
├── ForbiddenAddress    what would be called is not on the public internet, and not allowed by name
├── NoAnswer            no worker answered in time
├── Insecure            the installation is not safe to start
├── StaleAttempt        a worker wrote under a lease that it had lost; nothing was written
└── StorageError        the artifact store failed
    └── ArtifactMissing     the store has no such key
"""


class ServiceError(Exception):
    """Base of the tree."""


class NotFound(ServiceError):
    """What was named does not exist, or is not yours."""


class Forbidden(ServiceError):
    """Who asks sees it, but may not do this."""


class Conflict(ServiceError):
    """What was asked for contradicts what is there."""


class Busy(ServiceError):
    """As much waits as may; later there is room again."""


class Damaged(ServiceError):
    """What arrived is not what was announced; nothing of it is kept."""


class ForbiddenAddress(ServiceError):
    """What would be called is not on the public internet, and not allowed by name."""


class NoAnswer(ServiceError):
    """No worker answered in time."""


class Insecure(ServiceError):
    """The installation is not safe to start."""


class StaleAttempt(ServiceError):
    """A worker wrote under a lease that it had lost; nothing was written."""


class StorageError(ServiceError):
    """The artifact store failed."""


class ArtifactMissing(StorageError):
    """The store has no such key."""
