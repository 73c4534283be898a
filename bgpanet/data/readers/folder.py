"""A folder of images: unlabelled ones directly in it, or one sub-folder for each class.

Nothing tells which images show the same lesion, so each is its own group, but for byte-identical ones.
"""

from collections.abc import Callable
from pathlib import Path

from bgpanet.data.index import ImageRecord, Index, identical_images, join_groups
from bgpanet.data.readers.files import IMAGE_ID, SYNTHETIC_MARKER, Complaints, ImageFile, inspect
from bgpanet.errors import InvalidInput, Problem

SUFFIXES = (".jpg", ".jpeg", ".png")


def read(path: Path, progress: Callable[[int, int], None] | None = None) -> Index:
    """The index. Raises InvalidInput with every problem."""
    flat = _images(path)
    folders = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    by_class = {folder.name: _images(folder) for folder in folders}
    by_class = {name: files for name, files in by_class.items() if files}
    if flat and by_class:
        raise InvalidInput.one(str(path), "has images both directly and in sub-folders; use one of the two")
    if odd := [name for name in by_class if not name.isprintable()]:
        raise InvalidInput(Problem(ascii(name), "a class's folder must have a printable name in UTF-8") for name in odd)
    classes = tuple(by_class)
    files: list[tuple[Path, int | None]] = [(file, None) for file in flat]
    files += [(file, classes.index(name)) for name in classes for file in by_class[name]]
    if not files:
        raise InvalidInput.one(str(path), f"has no images ({', '.join(SUFFIXES)})")
    return _index(path, classes, files, progress)


def _images(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _index(
    path: Path,
    classes: tuple[str, ...],
    files: list[tuple[Path, int | None]],
    progress: Callable[[int, int], None] | None,
) -> Index:
    refused, warned = Complaints(), Complaints()
    inside = path.resolve()
    found: dict[str, tuple[Path, ImageFile, int | None]] = {}
    for number, (file, label) in enumerate(files, start=1):
        where = str(file.relative_to(path))
        if not IMAGE_ID.fullmatch(file.stem):
            refused.add("the file's name must be letters, digits, dots, dashes and underscores", where)
        elif file.stem in found:
            refused.add("another image has the same name", where)
        elif not file.resolve().is_relative_to(inside):
            refused.add("a link leads out of the folder", where)
        else:
            try:
                found[file.stem] = (file, inspect(file), label)
            except OSError as error:
                refused.add(f"the image can't be read: {error.strerror}", where)
        if progress is not None and (number % 100 == 0 or number == len(files)):
            progress(number, len(files))
    if problems := refused.problems():
        raise InvalidInput(problems)
    pairs = []
    for same in identical_images((image_id, image_id, file.sha256) for image_id, (_, file, _) in found.items()):
        pairs += [(same[0][0], other) for other, _ in same[1:]]
        warned.add("images are byte-identical; they are kept together", " = ".join(image_id for image_id, _ in same))
    for image_id, (_, looked_at, _) in found.items():
        if not looked_at.looks_like_image:
            warned.add("the file is neither JPEG nor PNG nor TIFF, BMP or WebP and will count as unreadable", image_id)
    group_of = join_groups(found, pairs)
    return Index(
        format="folder",
        classes=classes,
        records=tuple(
            ImageRecord(image_id, file, 0, looked_at.size, looked_at.sha256, label, group_of[image_id])
            for image_id, (file, looked_at, label) in found.items()
        ),
        group_unit="image",
        findings=tuple(warned.findings()),
        synthetic=(path / SYNTHETIC_MARKER).exists(),
    )
