"""A clock that a test moves, and a data set that jobs can be submitted on."""

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


class Clock:
    """Milliseconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += round(seconds * 1000)
