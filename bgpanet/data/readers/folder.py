"""A folder of images: unlabelled ones directly in it, or one sub-folder for each class.

Nothing tells which images show the same lesion, so each is its own group, but for byte-identical ones.
"""

from collections.abc import Callable
from pathlib import Path

from bgpanet.data.index import Index
from bgpanet.data.readers.about import about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.files import Complaints, leads_out
from bgpanet.errors import InvalidInput

SUFFIXES = (".jpg", ".jpeg", ".png")
OTHER_IMAGES = (".bmp", ".dcm", ".gif", ".heic", ".jp2", ".tif", ".tiff", ".webp")

ByClass = dict[str | None, list[Path]]


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem."""
    draft = Draft("folder", path, about(path), (), "image", [])
    by_class = files_by_class(path, lambda file: file.suffix.lower() in SUFFIXES, draft.refused, draft.warned)
    draft.classes = tuple(name for name in by_class if name is not None)
    for name, files in by_class.items():
        for file in files:
            where = str(file.relative_to(path))
            if leads_out(file, path):
                draft.refused.add("a link leads out of the folder", where)
            draft.rows.append(Row(where, file.stem, file, name, file.stem))
    if not draft.rows:
        draft.refused.add(f"has no images ({', '.join(SUFFIXES)})", str(path))
    return draft.index(progress)


def files_by_class(path: Path, wanted: Callable[[Path], bool], refused: Complaints, warned: Complaints) -> ByClass:
    """The wanted files directly in a folder, as class None, or those of each sub-folder; sorted.

    Files that would silently be left out are told: deeper ones are refused, folders without any and images of other
    kinds are warned of.

    Raises:
        InvalidInput: wanted files both directly in the folder and in sub-folders.
    """
    by_class: ByClass = {None: _files(path, wanted, warned, path)}
    for folder in sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")):
        if found := _files(folder, wanted, warned, path):
            by_class[folder.name] = found
        deeper = [file for file in folder.rglob("*") if file.parent != folder and file.is_file() and wanted(file)]
        for file in sorted(deeper):
            refused.add("lies deeper than in a class's folder; move it up", str(file.relative_to(path)))
        if not found and not deeper:
            warned.add("the folder has no images and is no class", folder.name)
    if by_class[None] and len(by_class) > 1:
        raise InvalidInput.one(str(path), "has images both directly and in sub-folders; use one of the two")
    return {name: files for name, files in by_class.items() if files}


def _files(folder: Path, wanted: Callable[[Path], bool], warned: Complaints, path: Path) -> list[Path]:
    found = []
    for file in sorted(file for file in folder.iterdir() if not file.name.startswith(".")):
        if wanted(file):
            found.append(file)
        elif file.suffix.lower() in (*SUFFIXES, *OTHER_IMAGES):
            what = "the image is of a kind that this format does not read, and is left out"
            warned.add(what, str(file.relative_to(path)))
    return found
