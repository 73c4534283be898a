"""Images that show the same thing: byte for byte, or photographed or saved again.

The same lesion photographed twice is shifted, turned a little and coloured otherwise, which perceptual hashes of a
whole frame do not survive, and images of different lesions resemble each other in all that such hashes see. So local
features are compared (SIFT, Lowe 2004; RootSIFT, Arandjelović and Zisserman 2012). Candidates are each image's nearest
ones by an aggregate of its features (VLAD, Jégou et al. 2010), and by that together with its spectrum, which a shift
leaves as it is and which knows images of few distinct features by their coarse structure. A candidate counts where
enough features agree on one shift, turn and scale (RANSAC). Mirror images are not found, nor images without any
structure, nor every second photograph of a lesion: `studies/duplicates.py` counts what is found on HAM10000.
"""

import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bgpanet.data.index import Index, join_groups
from bgpanet.errors import InvalidInput

LONGER_SIDE = 200  # pixels, at which features are looked for
FEATURES = 192  # the strongest, of an image
SPECTRUM = 64, 48  # pixels that it is taken of
BAND = 1.5, 12.0  # pixels of blur, at LONGER_SIDE, between which structure counts for it
AGGREGATED = 96  # the strongest, which tell an image from others; weaker ones are alike everywhere
NEIGHBOURS, WITH_SPECTRA = 8, 24  # candidates of an image, by its features alone and together with its spectrum
WORDS, DIMENSIONS, ROUNDS = 64, 48, 8  # of the aggregate; rounds of k-means
SAMPLE = 30_000  # features that the words are learnt from
TOLERANCE = 4.0  # pixels by which features that agree may differ
FEWEST, AGREEING = 4, 10  # features: fewer can't be laid over each other; fewer are chance
_NOTHING = np.zeros((0, 2), np.float16), np.zeros((0, 128), np.uint8)
_SPECTRUM_LENGTH = SPECTRUM[1] * (SPECTRUM[0] // 2 + 1)

Features = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(points, descriptors, spectrum) of an image, as in `Fingerprints`."""


@dataclass(frozen=True)
class Fingerprints:
    """What of a data set's images suffices to find them again elsewhere, in the order of its index; N images.

    image_ids: of the readable images. sha256: of what is stored of each, hex. counts: (N,) features of each. points:
    (sum of counts, 2) float16, pixels at LONGER_SIDE. descriptors: (sum of counts, 128) uint8, square roots of SIFT's.
    spectra: (N, S) float16 of unit length; zeros where they are not known. About 28 kB an image.
    """

    image_ids: tuple[str, ...]
    sha256: tuple[str, ...]
    counts: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray
    spectra: np.ndarray

    @classmethod
    def of(cls, images: Iterable[tuple[str, str, Features]]) -> "Fingerprints":
        """From (image id, SHA-256, what `features` gave) of each image."""
        rows = list(images)
        points, descriptors = zip(_NOTHING, *(found[:2] for _, _, found in rows), strict=True)
        return cls(
            tuple(image_id for image_id, _, _ in rows),
            tuple(sha256 for _, sha256, _ in rows),
            np.array([len(found[0]) for _, _, found in rows], dtype=np.int64),
            np.concatenate(points),
            np.concatenate(descriptors),
            np.array([found[2] for _, _, found in rows], np.float16).reshape(len(rows), _SPECTRUM_LENGTH),
        )

    def write(self, path: Path) -> None:
        """One `.npz` file without pickles."""
        with path.open("wb") as file:
            np.savez(
                file,
                image_ids=np.array(self.image_ids, np.str_),
                sha256=np.array(self.sha256, np.str_),
                counts=self.counts,
                points=self.points,
                descriptors=self.descriptors,
                spectra=self.spectra,
            )

    @classmethod
    def read(cls, path: Path) -> "Fingerprints":
        """What `write` wrote, also before there were spectra. Raises InvalidInput."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                found = cls(
                    tuple(stored["image_ids"].tolist()),
                    tuple(stored["sha256"].tolist()),
                    stored["counts"],
                    stored["points"],
                    stored["descriptors"],
                    stored["spectra"]
                    if "spectra" in stored
                    else np.zeros((len(stored["counts"]), _SPECTRUM_LENGTH), np.float16),
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidInput.one(str(path), f"can't be read as fingerprints: {error}") from None
        total = int(found.counts.sum())
        length = len(found.image_ids)
        if (
            not length == len(found.sha256) == len(found.counts)
            or found.descriptors.shape != (total, 128)
            or found.spectra.shape != (length, _SPECTRUM_LENGTH)
        ):
            raise InvalidInput.one(str(path), "is damaged: its parts do not fit together")
        return found


@dataclass(frozen=True)
class Pair:
    """Two images that show the same. agreeing: features that agree on how one lies over the other; 0 for the same
    bytes, where none are needed."""

    first: str
    second: str
    agreeing: int

    @property
    def identical(self) -> bool:
        """Whether they are the same bytes."""
        return self.agreeing == 0


def features(image: Image.Image) -> Features:
    """What there is to compare of an image in any mode and size."""
    import cv2  # not where only the control plane is installed

    longer = max(image.size)
    size = tuple(max(8, round(side * LONGER_SIDE / longer)) for side in image.size)
    grey = np.asarray(image.convert("L").resize((size[0], size[1]), Image.Resampling.BILINEAR))
    cv2.setNumThreads(1)  # images are looked at in threads already
    sift = cv2.SIFT_create(nfeatures=FEATURES, contrastThreshold=0.002, edgeThreshold=30)  # type: ignore[attr-defined]  # its stubs lack it
    keypoints, found = sift.detectAndCompute(grey, None)
    if found is None:
        return *_NOTHING, _spectrum(grey)
    strongest = np.argsort([-point.response for point in keypoints], kind="stable")[:FEATURES]
    points = np.array([keypoints[n].pt for n in strongest], np.float16)
    shares = found[strongest] / np.maximum(found[strongest].sum(axis=1, keepdims=True), 1e-6)
    return points, np.rint(np.sqrt(shares) * 255).astype(np.uint8), _spectrum(grey)


def _spectrum(grey: np.ndarray) -> np.ndarray:
    """(S,) float16: square roots of the magnitudes of a grey image's frequencies, of mean 0 and length 1."""
    import cv2

    fine, coarse = (cv2.GaussianBlur(grey.astype(np.float32), (0, 0), blur) for blur in BAND)
    small = cv2.resize(fine - coarse, SPECTRUM, interpolation=cv2.INTER_AREA)
    window = np.outer(np.hanning(SPECTRUM[1]), np.hanning(SPECTRUM[0]))
    magnitudes = np.sqrt(np.abs(np.fft.rfft2(small * window))).ravel()
    return _unit(magnitudes - magnitudes.mean()).astype(np.float16)


def find_pairs(
    one: Fingerprints,
    other: Fingerprints | None = None,
    progress: Callable[[int, int], None] | None = None,
    agreeing: int = AGREEING,
) -> list[Pair]:
    """Pairs inside one data set, each once, or between two (`first` is of `one`): the same bytes first, then those on
    which most features agree, at least `agreeing`. `progress` is called with candidates looked at and in all."""
    same = _identical(one, other)
    known = {(pair.first, pair.second) for pair in same}
    left, right = _Features(one), _Features(other or one)
    candidates = _candidates(one, other)
    found = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(candidates), 2000):
            part = candidates[start : start + 2000]
            counted = pool.map(lambda candidate: _agreeing(left[candidate[0]], right[candidate[1]]), part)
            for (i, j), agree in zip(part, counted, strict=True):
                pair = Pair(one.image_ids[i], (other or one).image_ids[j], agree)
                if agree >= agreeing and (pair.first, pair.second) not in known:
                    found.append(pair)
            if progress is not None:
                progress(min(start + 2000, len(candidates)), len(candidates))
    return same + sorted(found, key=lambda pair: (-pair.agreeing, pair.first, pair.second))


def join(index: Index, pairs: Iterable[Pair]) -> Index:
    """The index with the groups of each pair made one, so that no split tears them apart. Its digest is another."""
    group_of = {record.image_id: record.group for record in index.records}
    root = join_groups(group_of.values(), ((group_of[pair.first], group_of[pair.second]) for pair in pairs))
    return replace(index, records=tuple(replace(record, group=root[record.group]) for record in index.records))


def _identical(one: Fingerprints, other: Fingerprints | None) -> list[Pair]:
    """Of three and more with the same bytes, the first one with each other one."""
    by_digest: defaultdict[str, list[str]] = defaultdict(list)
    for image_id, sha256 in zip(one.image_ids, one.sha256, strict=True):
        by_digest[sha256].append(image_id)
    pairs: Iterator[tuple[str, str]]
    if other is None:
        pairs = (pair for same in map(sorted, by_digest.values()) for pair in product(same[:1], same[1:]))
    else:
        here = zip(other.image_ids, other.sha256, strict=True)
        pairs = (pair for image_id, sha256 in here for pair in product(by_digest.get(sha256, [])[:1], [image_id]))
    return [Pair(first, second, 0) for first, second in sorted(pairs)]


class _Features:
    """(points, descriptors) of each image."""

    def __init__(self, prints: Fingerprints) -> None:
        self._prints = prints
        self._ends = np.cumsum(prints.counts)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self._ends[n] - self._prints.counts[n], self._ends[n])
        return self._prints.points[part], self._prints.descriptors[part]


def _candidates(one: Fingerprints, other: Fingerprints | None) -> list[tuple[int, int]]:
    """Positions of images that are among each other's nearest, in order."""
    both = [one] if other is None else [one, other]
    if any(len(prints.descriptors) == 0 for prints in both):
        return []
    words = _words(np.concatenate([_sample(_strongest(prints).descriptors) for prints in both]))
    mean = np.concatenate([prints.spectra for prints in both]).mean(axis=0, dtype=np.float32)
    left = _aggregates(_strongest(one), words), _deviations(one, mean)
    right = left if other is None else (_aggregates(_strongest(other), words), _deviations(other, mean))
    found = _nearest(left, right, itself=other is None)
    if other is not None:
        found |= {(i, j) for j, i in _nearest(right, left, itself=False)}
        return sorted(found)
    return sorted({(min(pair), max(pair)) for pair in found})


def _strongest(prints: Fingerprints) -> Fingerprints:
    """With no more than AGGREGATED features of an image."""
    kept = np.concatenate([np.zeros(0, bool), *(np.arange(count) < AGGREGATED for count in prints.counts)])
    counts = np.minimum(prints.counts, AGGREGATED)
    return replace(prints, counts=counts, points=prints.points[kept], descriptors=prints.descriptors[kept])


def _sample(descriptors: np.ndarray) -> np.ndarray:
    return descriptors[:: max(1, len(descriptors) // SAMPLE)].astype(np.float32)


def _words(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean (128,), projection (128, D), centres (W, D)) by principal components and k-means."""
    mean = sample.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((sample - mean).T))
    projection = axes[:, ::-1][:, :DIMENSIONS].astype(np.float32)
    points = (sample - mean) @ projection
    rng = np.random.Generator(np.random.Philox(key=0))
    centres = points[rng.permutation(len(points))[:WORDS]]
    for _ in range(ROUNDS):
        nearest = _nearest_word(points, centres)
        for word in range(len(centres)):
            if (mine := nearest == word).any():
                centres[word] = points[mine].mean(axis=0)
    return mean, projection, centres


def _nearest_word(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray((points @ centres.T - 0.5 * (centres**2).sum(axis=1)).argmax(axis=1))


def _aggregates(prints: Fingerprints, words: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """(N, W·D) float32 of unit length: for each word the direction in which the image's features differ from it."""
    mean, projection, centres = words
    made = np.zeros((len(prints.image_ids), len(centres), projection.shape[1]), np.float32)
    ends = np.cumsum(prints.counts)
    for start in range(0, len(made), 500):
        counts = prints.counts[start : start + 500]
        part = slice(ends[start] - prints.counts[start], ends[start + len(counts) - 1])
        points = (prints.descriptors[part].astype(np.float32) - mean) @ projection
        nearest = _nearest_word(points, centres)
        rest = _unit(points - centres[nearest])
        np.add.at(made, (np.repeat(np.arange(start, start + len(counts)), counts), nearest), rest)
    flat = _unit(made).reshape(len(made), -1)
    return _unit(np.sign(flat) * np.sqrt(np.abs(flat)))


def _deviations(prints: Fingerprints, mean: np.ndarray) -> np.ndarray:
    """(N, S) float32 of unit length: in what each spectrum differs from the mean; zeros where it is not known."""
    known = prints.spectra.any(axis=1, keepdims=True)
    return _unit(np.where(known, prints.spectra - mean, 0))


def _unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-6))


def _nearest(
    left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray], *, itself: bool
) -> set[tuple[int, int]]:
    """(position in left, position in right) of each of left's nearest ones, by aggregates alone and with spectra."""
    found: set[tuple[int, int]] = set()
    if len(right[0]) - itself < 1:
        return found
    for start in range(0, len(left[0]), 1000):
        by_features, by_spectra = (
            mine[start : start + 1000] @ yours.T for mine, yours in zip(left, right, strict=True)
        )
        rows = np.arange(len(by_features))
        for alike, wanted in ((by_features, NEIGHBOURS), (by_features + by_spectra, WITH_SPECTRA)):
            most = min(wanted, len(right[0]) - itself)
            if itself:
                alike[rows, start + rows] = -np.inf
            nearest = np.argpartition(-alike, most - 1, axis=1)[:, :most]
            found.update(zip(np.repeat(start + rows, most).tolist(), nearest.ravel().tolist(), strict=True))
    return found


def _agreeing(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> int:
    """How many features agree on one shift, turn and scale."""
    import cv2

    if min(len(one[0]), len(other[0])) < FEWEST:
        return 0
    # Exact, of whole numbers below 2**24. By OpenCV, since NumPy's would begin threads of its own in each of ours.
    alike = cv2.gemm(one[1].astype(np.float32), other[1].astype(np.float32), 1, None, 0, flags=cv2.GEMM_2_T)  # type: ignore[call-overload]
    there = alike.argmax(axis=1)
    mutual = alike.argmax(axis=0)[there] == np.arange(len(there))
    if mutual.sum() < FEWEST:
        return 0
    source = np.ascontiguousarray(one[0][mutual], np.float32)
    target = np.ascontiguousarray(other[0][there[mutual]], np.float32)
    options: dict[str, Any] = {"method": cv2.RANSAC, "ransacReprojThreshold": TOLERANCE, "maxIters": 500}
    moved, agree = cv2.estimateAffinePartial2D(source, target, **options)
    if moved is None or not 0.5 < np.hypot(moved[0, 0], moved[1, 0]) < 2:
        return 0
    return int(agree.sum())
