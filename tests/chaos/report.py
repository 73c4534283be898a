"""What a drill found, for people and as JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.drill import PASS_SECONDS, Injected, Outcome


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below so large a share of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def table(outcome: Outcome, lease_seconds: float) -> str:
    """The table at the end."""
    found, recoveries, lost = outcome.findings, outcome.recoveries, outcome.steps_lost
    mark = lease_seconds + PASS_SECONDS
    ends = ", ".join(f"{end} {count}" for end, count in sorted(found.ends.items()))
    rows = [
        ("database", f"{outcome.database}, seed {outcome.seed}, {outcome.seconds / 60:.1f} min"),
        ("kills", str(outcome.kills)),
        ("faults injected", str(sum(outcome.counts.values()))),
        ("jobs submitted", f"{outcome.submitted}, of these again by the same key {outcome.repeated} times"),
        ("jobs finished", f"{sum(found.ends.values())}: {ends}"),
        ("attempts", ", ".join(f"{name} {count}" for name, count in found.outcomes.most_common())),
        ("lost", str(len(found.lost))),
        ("doubled", str(len(found.doubled))),
        ("stale writes accepted", str(len(found.stale))),
        ("stale writes refused", str(outcome.refused_writes)),
        ("results compared with undisturbed ones", f"{found.compared}, bit for bit"),
        ("other findings", str(len(found.other))),
    ]
    if recoveries:
        middle, late = statistics.median(recoveries), quantile(recoveries, 0.95)
        beside = ", ".join(f"{name} {count}" for name, count in outcome.beside_slow.most_common())
        slow = sum(seconds > mark for seconds in recoveries)
        told = f"{len(recoveries)}: median {middle:.1f} s, 95 % within {late:.1f} s, longest {max(recoveries):.1f} s"
        rows += [
            ("recoveries", told),
            (f"recoveries above {mark:.0f} s", str(slow) + (f", beside: {beside}" if slow else "")),
        ]
    if lost:
        told = f"median {statistics.median(lost):.0f}, 95 % within {quantile(lost, 0.95):.0f}, most {max(lost)}"
        rows.append(("steps done again", told))
    wide = max(len(name) for name, _ in rows)
    text = "\n".join(f"{name.ljust(wide)}  {value}" for name, value in rows)
    counts = "\n".join(f"{count:6d}  {name}" for name, count in sorted(outcome.counts.items()))
    none = sorted({each.fault for each in outcome.injected} - set(outcome.counts))
    unseen = f"\nno opportunity for: {', '.join(none)}" if none else ""
    wrong = "".join(f"\n✗ {finding}" for finding in found.all)
    return f"{text}\n\nFaults:\n{counts}{unseen}{wrong}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """All of it, each fault with its time."""
    values = asdict(outcome)
    # `asdict` takes a counter for pairs
    values["beside_slow"] = dict(outcome.beside_slow)
    values["findings"] |= {name: dict(getattr(outcome.findings, name)) for name in ("ends", "outcomes")}
    values["counts"] = dict(outcome.counts)
    return values


def write(outcome: Outcome, path: Path) -> None:
    """Writes it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(outcome), indent=1) + "\n", encoding="utf-8")


def listed(injected: Sequence[Injected]) -> str:
    """Faults in their order, a line each: seconds since the first, seconds that it lasted, what it did."""
    return "\n".join(f"{e.at:8.2f} {e.lasted:6.2f}  {e.fault}: {e.what or 'no opportunity'}" for e in injected)


def replay(outcome: Outcome) -> str:
    """The faults in their order, for whoever has to find out what went wrong."""
    told = [
        f"{each.at:8.2f} {each.lasted:6.2f}  {each.fault}: {each.what or 'no opportunity'}" for each in outcome.injected
    ]
    return "\n".join([f"seed {outcome.seed} on {outcome.database}", *told])
