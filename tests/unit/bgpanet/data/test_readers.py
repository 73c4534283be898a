"""What every format promises."""

from pathlib import Path

import pytest

from bgpanet.data.readers import READERS, described, read
from bgpanet.errors import InvalidInput


@pytest.mark.parametrize("format", READERS)
def test_a_folder_without_data_of_the_format_is_refused(format: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(format, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("format", READERS)
def test_folders_where_files_should_be_are_refused(format: str, tmp_path: Path) -> None:
    for name in ("images.csv", "set.npz", "a.dcm", "dataset.yaml", "index.json", "HAM10000_metadata.csv", "a.jpg"):
        (tmp_path / name).mkdir()
    with pytest.raises(InvalidInput):
        read(format, tmp_path)


@pytest.mark.parametrize("format", READERS)
def test_a_format_says_what_it_is_in_one_line(format: str) -> None:
    summary, _, rest = described()[format].partition("\n")
    assert 20 < len(summary) <= 117
    assert format == "packed" or rest.strip()
