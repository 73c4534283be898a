"""Registering and removing data sets, on SQLite and a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpanet.data import synthetic
from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.errors import InvalidInput
from services import datasets
from services.artifacts import FolderStore
from services.database import Database
from services.errors import Conflict, NotFound
from services.tables import Base, Dataset


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'x.db'}")
    Base.metadata.create_all(made.engine)
    yield made
    made.close()


def register(database: Database, folder: Path, name: str, data: Path) -> tuple[Dataset, bool]:
    store = FolderStore(folder / "store")
    scratch = folder / "scratch"
    return datasets.register(database, store, name=name, format="ham10000", path=data, user="ada", scratch=scratch)


def test_the_same_content_under_a_name_is_one_data_set_and_other_content_is_refused(
    database: Database, tmp_path: Path
) -> None:
    synthetic.draw(tmp_path / "a", lesions=30)
    synthetic.draw(tmp_path / "b", lesions=30, seed=1)
    first, new = register(database, tmp_path, "x", tmp_path / "a")
    again, known = register(database, tmp_path, "x", tmp_path / "a")
    assert (new, known, again.id) == (True, False, first.id)
    with pytest.raises(Conflict, match="other content"):
        register(database, tmp_path, "x", tmp_path / "b")


def test_drawn_lesions_without_their_mark_are_another_data_set(database: Database, tmp_path: Path) -> None:
    """Whether images are drawn is part of what they are: it must not come from somebody else's cache."""
    synthetic.draw(tmp_path / "a", lesions=30)
    drawn, _ = register(database, tmp_path, "drawn", tmp_path / "a")
    (tmp_path / "a" / "SYNTHETIC.txt").unlink()
    claimed, _ = register(database, tmp_path, "claimed", tmp_path / "a")
    assert (drawn.synthetic, claimed.synthetic) == (True, False)
    assert drawn.digest != claimed.digest


def test_removing_a_data_set_removes_its_files_unless_another_has_the_same(database: Database, tmp_path: Path) -> None:
    synthetic.draw(tmp_path / "a", lesions=30)
    store = FolderStore(tmp_path / "store")
    one, two = (register(database, tmp_path, name, tmp_path / "a")[0].id for name in ("one", "two"))
    datasets.remove(database, store, one)
    assert len(list(store.keys("datasets/"))) == 2
    datasets.remove(database, store, two)
    assert list(store.keys("datasets/")) == []
    with pytest.raises(NotFound):
        datasets.remove(database, store, two)


def test_data_that_changes_while_it_is_registered_is_refused_and_not_recorded(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.draw(tmp_path / "a", lesions=30)

    def read_then_change(format: str, path: Path) -> Index:
        index = read(format, path)
        index.records[3].path.write_bytes(b"changed")
        return index

    monkeypatch.setattr("services.datasets.read", read_then_change)
    with pytest.raises(InvalidInput, match="changed while it was read"):
        register(database, tmp_path, "x", tmp_path / "a")
    assert not list(FolderStore(tmp_path / "store").keys("datasets/"))
