"""A clock that a test moves, and rows: of a data set that jobs can be submitted on, of a registered model."""

DATASET = {
    "id": "d",
    "name": "lesions",
    "format": "ham10000",
    "digest": "0" * 64,
    "synthetic": True,
    "classes": ["mel", "nv"],
    "images": 10,
    "groups": 8,
    "group_unit": "lesion",
    "class_counts": [],
    "findings": [],
    "files": {},
    "created_by": "ada",
    "created_at": 0,
}

MODEL = {"id": "m", "project": "shared", "name": "lesions", "created_by": "ada", "created_at": 0}
VERSION = {
    "id": "v",
    "model_id": "m",
    "number": 1,
    "state": "ready",
    "source": "trained",
    "job_id": "j",
    "findings": [],
    "digest": "0" * 64,
    "members": 1,
    "card": {},
    "metrics": {},
    "provenance": {},
    "files": {},
    "created_by": "ada",
    "created_at": 0,
}


class Clock:
    """Milliseconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += round(seconds * 1000)
