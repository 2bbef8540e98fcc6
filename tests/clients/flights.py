"""The real input and its ground truth, and the judgement of what came back."""

import collections
import gzip
import hashlib
import json
import pathlib

CARRIER = 9
ARR_DELAY = 8
SORTED_SHA256 = "ea4eebbb43343867f59c6c10366fb6e8895457d4a874aad6e08e2b2df2c4d660"


class Flights:
    """The unpacked file: its header, its rows, and its truth."""

    def __init__(self, data: pathlib.Path):
        text = gzip.decompress((data / "flights.csv.gz").read_bytes())
        lines = text.decode().splitlines()
        self.bytes = text
        self.header, self.rows = lines[0], lines[1:]
        self.truth = json.loads((data / "flights.truth.json").read_text())
        assert hashlib.sha256(text).hexdigest() == self.truth["sha256"]

    def write(self, path: pathlib.Path) -> pathlib.Path:
        path.write_bytes(self.bytes)
        return path

    def write_keyed(self, path: pathlib.Path) -> pathlib.Path:
        """`carrier TAB row`, without the header: what kcat -K reads."""
        path.write_text("".join(f"{carrier(row)}\t{row}\n" for row in self.rows))
        return path

    def check_one_partition(self, rows: list[str]) -> None:
        """Header and values, in the order of one partition, are the file."""
        text = "\n".join([self.header, *rows]) + "\n"
        found = hashlib.sha256(text.encode()).hexdigest()
        assert found == self.truth["sha256"], f"{len(rows)} rows, SHA-256 {found}"

    def check_partitions(self, records: list[tuple[str, str]]) -> None:
        """Keys and rows of several partitions: nothing lost, doubled, or out of order in a key."""
        rows = sorted(row.encode() for _, row in records)
        found = hashlib.sha256(b"".join(row + b"\n" for row in rows)).hexdigest()
        assert found == SORTED_SHA256, f"{len(rows)} rows, SHA-256 of the sorted ones {found}"
        by_key = collections.defaultdict(list)
        for key, row in records:
            assert key == carrier(row), f"key {key} on {row}"
            by_key[key].append(row)
        expected = collections.defaultdict(list)
        for row in self.rows:
            expected[carrier(row)].append(row)
        assert by_key == expected, "order within a key"
        sums = {key: sum(map(delay, rows)) for key, rows in by_key.items()}
        counts = {key: len(rows) for key, rows in by_key.items()}
        assert counts == self.truth["flights_by_carrier"]
        assert sums == self.truth["total_arr_delay_minutes_by_carrier"]


def carrier(row: str) -> str:
    return row.split(",", CARRIER + 1)[CARRIER]


def delay(row: str) -> int:
    """The arrival delay in minutes; a flight that never arrived has none."""
    text = row.split(",", ARR_DELAY + 1)[ARR_DELAY]
    return int(float(text)) if text not in ("", "NA") else 0
