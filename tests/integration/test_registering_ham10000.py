"""All real images in one registration, with the counts that they are known by."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.context import Context
from services.settings import Settings
from tests.support.databases import make_schema
from tests.support.registering import register

COUNTS = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    made = Context(settings)
    make_schema(made.database.url)
    yield made
    made.database.close()
    made.celery.close()


@pytest.mark.real_data
@pytest.mark.timeout(3600)
def test_all_10015_images_of_ham10000_register_in_one_job(context: Context, ham10000: Path) -> None:
    made = register(context, "ham10000", ham10000)
    assert (made["state"], made["version"]) == ("ready", 1), made["error"]
    assert {count["class"]: count["images"] for count in made["class_counts"]} == COUNTS
    assert (made["images"], made["groups"], made["group_unit"]) == (10_015, 7452, "lesion")
    assert made["columns"] == ["age", "dx_type", "lesion_id", "localization", "sex"]
