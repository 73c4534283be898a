"""A folder with images and one table of them: `images.csv`, or whatever the folder's only `.csv` is called.

    image, or path       needed: the image's file, relative to the folder, with / between folders
    image_id             optional: the image's id; else its file's name without the ending
    label                optional: the class's name; empty where it is unknown
    group, patient_id,   optional: what must not be torn apart by a split. The first of these columns that is there
    lesion_id            makes the groups; groups that share a patient or lesion of the others are joined
    anything else        an attribute of the image, as text

UTF-8, commas, a header. Cells that a spreadsheet would take for a formula are text like any other. Without a column
for groups each image is its own group.
"""

from collections import defaultdict
from pathlib import Path, PurePosixPath

from bgpanet.data.index import Index
from bgpanet.data.readers.about import about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.files import locate
from bgpanet.data.readers.tables import Line, Table, read_table
from bgpanet.errors import InvalidInput

TABLE = "images.csv"
FILE_COLUMNS = ("image", "path")
GROUP_COLUMNS = {"group": "group", "patient_id": "patient", "lesion_id": "lesion"}


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem of table and files."""
    table = read_table(_table_file(path))
    file_columns = [name for name in FILE_COLUMNS if name in table.columns]
    if len(file_columns) != 1:
        raise InvalidInput.one(table.name, f"must have one of the columns {' and '.join(FILE_COLUMNS)}")
    group_columns = [name for name in GROUP_COLUMNS if name in table.columns]
    classes = tuple(sorted({line.cells.get("label", "") for line in table.rows} - {""}))
    unit = GROUP_COLUMNS[group_columns[0]] if group_columns else "image"
    draft = Draft("csv", path, about(path), classes, unit, [])
    for line in table.rows:
        draft.rows.append(_row(draft, line, file_columns[0], group_columns))
    for column in group_columns[1:]:
        _join(draft, table, column)
    return draft.index(progress)


def _table_file(path: Path) -> Path:
    if (path / TABLE).exists():
        return path / TABLE
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv" and not file.name.startswith("."))
    if len(found) != 1:
        what = f"has several tables ({', '.join(file.name for file in found)})" if found else "has no table"
        raise InvalidInput.one(str(path), f"{what}; name the one of the images {TABLE}")
    return found[0]


def _row(draft: Draft, line: Line, file_column: str, group_columns: list[str]) -> Row:
    name = line[file_column]
    image_id = line.cells.get("image_id", PurePosixPath(name).stem)
    group = line[group_columns[0]] if group_columns else image_id
    if not group or not group.isprintable():
        draft.refused.add(f"{group_columns[0] if group_columns else file_column} is empty or not printable", line.where)
    label = line.cells.get("label") or None
    own = {file_column, "image_id", "label", *group_columns[:1]}
    attributes = {column: cell for column, cell in line.cells.items() if column not in own}
    file = locate(draft.path, name, line.where, draft.refused)
    return Row(line.where, image_id, file, label, group, line.cells.get("lesion_id", ""), attributes)


def _join(draft: Draft, table: Table, column: str) -> None:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for row, line in zip(draft.rows, table.rows, strict=True):
        if line[column] and row.group not in groups[line[column]]:
            groups[line[column]].append(row.group)
    for name, shared in sorted(groups.items()):
        if len(shared) > 1:
            draft.pairs += [(shared[0], other) for other in shared[1:]]
            draft.warned.add(f"several groups share a {column}; they are kept together", name)
