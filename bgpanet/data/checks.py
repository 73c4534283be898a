"""Everything that is to be known of a data set before it is used, in one report: what is wrong with which images, what
belongs together, what is missing.

    index = read(format, path)
    checks = check(index, progress, others={"ham10000 1": Fingerprints.read(…)})
    pack(checks.index, folder)                 # its findings are those of reader and checks together
    checks.fingerprints.write(folder / FINGERPRINTS)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bgpanet.data.duplicates import Fingerprints
from bgpanet.data.index import Finding, Index

FINGERPRINTS = "fingerprints.npz"


@dataclass(frozen=True)
class Checks:
    """The report. `as_json` gives all of it but index and fingerprints as plain JSON values.

    index: what was checked, with all findings. findings: refused first, then excluded, then warned.
    fingerprints: of its readable images; kept by who registers, and handed in as `others` the next time.
    """

    index: Index
    findings: tuple[Finding, ...]
    fingerprints: Fingerprints

    @property
    def refused(self) -> bool:
        """Whether the data set must not be used."""
        return any(finding.level == "refused" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        raise NotImplementedError


def check(
    index: Index,
    progress: Callable[[int, int], None] | None = None,
    *,
    others: Mapping[str, Fingerprints] | None = None,
    workers: int | None = None,
) -> Checks:
    """Reads every image once, in `workers` threads, and tells all that is found; an unreadable image is a finding and
    stays in the index, excluded: no split uses it, and in a prediction it is a row with its error.

    others: fingerprints of other data sets by their names; images that are in both are told loudly. `progress` is
    called with images done and in all, in this thread, and may raise to stop.

    Raises:
        DataDamaged: an image is not any more what it was when it was indexed.
    """
    raise NotImplementedError
