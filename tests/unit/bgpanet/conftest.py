from pathlib import Path

import pytest

from bgpanet.data import synthetic
from bgpanet.data.index import Index
from bgpanet.data.readers import read


@pytest.fixture(scope="session")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn lesions; no test changes them."""
    folder = tmp_path_factory.mktemp("lesions")
    synthetic.draw(folder, lesions=40, seed=1)
    return folder


@pytest.fixture(scope="session")
def index(lesions: Path) -> Index:
    return read("ham10000", lesions)
