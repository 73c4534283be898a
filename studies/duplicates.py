"""What the finder of duplicates finds on HAM10000, against the table of known pairs across lesions.

    python studies/duplicates.py DIR [SHEET.png]

DIR is HAM10000 in its official layout. The finder never sees the table or the lesions. Prints recall of the known
pairs, precision among pairs of different lesions, and how both depend on the number of features that must agree;
SHEET shows the pairs of different lesions that no table knows, to be looked at by a person.
"""

import csv
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from bgpanet.data.duplicates import AGREEING, Features, Fingerprints, Pair, features, find_pairs
from bgpanet.data.index import Index
from bgpanet.data.readers import ham10000

SAME_BYTES = {("ISIC_0024366", "ISIC_0029861"), ("ISIC_0024777", "ISIC_0029938")}
SHOWN = 60


def fingerprints(index: Index) -> Fingerprints:
    """Of all images."""

    def look(position: int) -> tuple[str, str, Features]:
        record = index.records[position]
        with Image.open(record.path) as image:
            return record.image_id, record.sha256, features(image)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return Fingerprints.of(pool.map(look, range(len(index.records))))


def known_pairs(path: Path) -> set[tuple[str, str]]:
    """Image ids of each pair of the table, the smaller one first."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [sorted(Path(row[name]).stem for name in ("from_img", "to_img")) for row in csv.DictReader(file)]
    return {(first, second) for first, second in rows}


def sheet(path: Path, index: Index, pairs: list[Pair]) -> None:
    """The first pairs side by side, three in a row."""
    paths = {record.image_id: record.path for record in index.records}
    made = Image.new("RGB", (3 * 410, -(-len(pairs[:SHOWN]) // 3) * 165))
    draw = ImageDraw.Draw(made)
    for n, pair in enumerate(pairs[:SHOWN]):
        x, y = n % 3 * 410, n // 3 * 165
        draw.text((x, y), f"{n} {pair.first[5:]} {pair.second[5:]} {pair.agreeing}")
        for k, image_id in enumerate((pair.first, pair.second)):
            with Image.open(paths[image_id]) as image:
                made.paste(ImageOps.fit(image.convert("RGB"), (200, 150)), (x + k * 200, y + 13))
    made.save(path)


def main(folder: Path, picture: Path | None) -> None:
    """Prints the figures."""
    index = ham10000.read(folder)
    lesion = {record.image_id: record.attributes["lesion_id"] for record in index.records}
    known = known_pairs(folder / ham10000.DUPLICATES)
    begin = time.monotonic()
    prints = fingerprints(index)
    looked = time.monotonic()
    pairs = find_pairs(prints, agreeing=5)  # fewer than it takes, to show what the threshold does
    print(f"{len(index.records)} images: features {looked - begin:.0f} s, search {time.monotonic() - looked:.0f} s")
    same = {(pair.first, pair.second) for pair in pairs if pair.identical}
    print(f"byte-identical pairs: {len(same & SAME_BYTES)} of {len(SAME_BYTES)} known, {len(same - SAME_BYTES)} others")
    print("features that agree   pairs in one lesion   across lesions   known of those   recall   precision")
    for least in (6, 7, 8, 9, 10, 11, 12, 13, 15, 20):
        found = [pair for pair in pairs if pair.identical or pair.agreeing >= least]
        across = {(p.first, p.second) for p in found if lesion[p.first] != lesion[p.second]}
        hits = len(across & known)
        figures = f"{hits:17d} {hits / len(known):8.2f} {hits / max(1, len(across)):11.2f}"
        mark = "*" if least == AGREEING else " "
        print(f"{least:19d}{mark} {len(found) - len(across):21d} {len(across):16d}{figures}")
    missed = sorted(known - {(pair.first, pair.second) for pair in pairs if pair.agreeing >= AGREEING})
    print("missed:", ", ".join(" = ".join(pair) for pair in missed) or "none")
    if picture is not None:
        new = [p for p in pairs if lesion[p.first] != lesion[p.second] and (p.first, p.second) not in known]
        sheet(picture, index, [p for p in new if p.agreeing >= AGREEING])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
