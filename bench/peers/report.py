"""Medians, spreads and ratios of what was measured, and the tables that show them."""

import dataclasses
import statistics
from collections.abc import Callable

# Below this part of the rate a peer does not keep up with it.
KEEPS_UP = 0.98


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of some runs, and how far they spread."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(figures: list[float]) -> "Spread":
        return Spread(statistics.median(figures), min(figures), max(figures))

    def text(self, digits: int) -> str:
        return f"{self.median:,.{digits}f} [{self.min:,.{digits}f}-{self.max:,.{digits}f}]"


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure: of which measurement, how it comes from what that printed, how it is shown."""

    title: str
    cell: str
    figure: Callable[[dict], float]
    digits: int = 0
    has_ratio: bool = True


def all_cpu(report: dict) -> float:
    return report["server_cpu_seconds_per_gb"] + report["client_cpu_seconds_per_gb"]


COLUMNS = [
    Column("MB/s", "throughput", lambda it: it["bytes_per_second"] / 1e6),
    Column("records/s", "throughput", lambda it: it["records_per_second"], has_ratio=False),
    Column("CPU s/GB servers", "throughput", lambda it: it["server_cpu_seconds_per_gb"], 1),
    Column("with client", "throughput", all_cpu, 1),
    Column("consume MB/s", "consume", lambda it: it["bytes_per_second"] / 1e6),
    Column("again MB/s", "consume again", lambda it: it["bytes_per_second"] / 1e6),
    Column("tail MB/s", "tail", lambda it: it["bytes_per_second"] / 1e6),
    Column("p50 ms", "latency", lambda it: it["p50_us"] / 1e3, 2),
    Column("p99 ms", "latency", lambda it: it["p99_us"] / 1e3, 2),
    Column("p99.9 ms", "latency", lambda it: it["p999_us"] / 1e3, 2),
]


class Results:
    """What was measured, by peer and measurement, and what could not be."""

    def __init__(self, rate: int):
        self.rate = rate
        self.reports: dict[tuple[str, str], list[dict]] = {}
        self.failures: dict[tuple[str, str], list[str]] = {}
        self.absent: dict[str, str] = {}

    def add(self, name: str, cell: str, report: dict) -> None:
        self.reports.setdefault((name, cell), []).append(report)

    def fail(self, name: str, cell: str, why: str) -> None:
        self.failures.setdefault((name, cell), []).append(why)

    def spread(self, name: str, column: Column) -> Spread | None:
        reports = self.reports.get((name, column.cell), [])
        return Spread.of([column.figure(it) for it in reports]) if reports else None

    def kept_up(self, name: str) -> float:
        """The part of the rate that was acknowledged in time."""
        reports = self.reports.get((name, "latency"), [])
        reached = [it["records_per_second"] for it in reports]
        return statistics.median(reached) / self.rate if reached else 0.0

    def ratio(self, ours: str, theirs: str, column: Column) -> float | None:
        """Our median by theirs; none of latencies where one of them did not keep up."""
        if column.cell == "latency" and min(self.kept_up(ours), self.kept_up(theirs)) < KEEPS_UP:
            return None
        first, second = self.spread(ours, column), self.spread(theirs, column)
        if not first or not second or not second.median:
            return None
        return first.median / second.median

    def notes(self, name: str) -> list[str]:
        """What the row of a peer does not say by its figures."""
        notes = []
        if name in self.absent:
            notes.append(f"not measured: {self.absent[name]}")
        if (name, "latency") in self.reports and self.kept_up(name) < KEEPS_UP:
            kept = self.kept_up(name) * self.rate
            notes.append(f"does not keep up with {self.rate:,} records/s: {kept:,.0f} in time")
        for (failed, cell), whys in self.failures.items():
            if failed == name:
                notes.append(f"{cell} failed {len(whys)} times, the last: {whys[-1]}")
        return notes


def table(results: Results, names: list[str]) -> str:
    """A row for each peer, also for those that could not be had."""
    rows = [["", *(column.title for column in COLUMNS)]]
    for name in names:
        spreads = [(results.spread(name, column), column) for column in COLUMNS]
        rows.append([name, *(spread.text(column.digits) if spread else "-" for spread, column in spreads)])
    notes = [f"{name}: {note}" for name in names for note in results.notes(name)]
    return "\n".join([*aligned(rows), *notes])


def ratio_table(results: Results, ours: list[str], theirs: list[str]) -> str:
    """Ours by each of theirs."""
    columns = [column for column in COLUMNS if column.has_ratio]
    rows = [["ours / theirs", *(column.title for column in columns)]]
    for first in ours:
        for second in theirs:
            ratios = [results.ratio(first, second, column) for column in columns]
            cells = [f"{ratio:.3g}" if ratio is not None else "-" for ratio in ratios]
            rows.append([f"{first} / {second}", *cells])
    return "\n".join(aligned(rows))


def aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                      for place, (cell, width) in enumerate(zip(row, widths))) for row in rows]


def medians(results: Results, names: list[str]) -> list[dict]:
    """For the file of JSON lines: one object for each peer."""
    lines = []
    for name in names:
        line: dict = {"kind": "median", "peer": name}
        for column in COLUMNS:
            spread = results.spread(name, column)
            line[f"{column.cell}: {column.title}"] = dataclasses.asdict(spread) if spread else None
        line["notes"] = results.notes(name)
        lines.append(line)
    return lines
