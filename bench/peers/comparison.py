"""The peers take turns, run for run; what is found."""

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import peers
from loads import KafkaDriver, Load, NatsDriver
from peers import KAFKAS, NATS, OURS, PEERS, say
from processes import Failed, Unavailable, cpu_seconds, disk_bytes, run, wait_for
from report import Results, ratio_table, table

SYNC_PATIENCE_S = 300
# What a server may keep behind a deleted topic: its own logs, and files that it prepares.
LEFT_BYTES_MAX = 128 << 20


class Comparison:
    """The peers that take turns, and what is found."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.load = Load(options.record_bytes, options.partitions, options.producers, options.warm_up, options.seconds,
                         linger_ms=options.linger_ms)
        self.results = Results(options.rate)
        self.lines: list[dict] = []
        self.topics = 0
        # Kafka's brokers, which stay up, and what they used of a core while others had their turn.
        self.warmed: list[int] = []
        self.idle: list[float] = []

    def measure(self) -> None:
        with contextlib.ExitStack() as stack:
            turns = self._turns(stack)
            for number in range(self.options.runs):
                # Each run begins with another one: nobody always comes after the same.
                shift = number % len(turns) if turns else 0
                for names, site in turns[shift:] + turns[:shift]:
                    if not self.results.absent.keys() & names:
                        self._turn(number, names, site)

    def _turns(self, stack: contextlib.ExitStack) -> list:
        """Names, and a context that gives their drivers. Kafka is started here, since warming it takes
        long, and stays; the others are started fresh for every turn."""
        sites = [(self._wanted(OURS), lambda: peers.highwater(self.options))]
        if names := self._wanted(KAFKAS):
            try:
                warmed = stack.enter_context(peers.kafka(self.options, self.load))
                self.warmed = warmed["kafka"].site.servers.pids
                sites.append((names, lambda: contextlib.nullcontext(warmed)))
            except (Unavailable, Failed) as error:
                self._absent(names, error)
        for name in self._wanted(list(NATS)):
            sites.append(([name], lambda name=name: peers.nats(self.options, name)))
        return [site for site in sites if site[0]]

    def _wanted(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self.options.only]

    def _absent(self, names: list[str], error: Exception) -> None:
        for name in names:
            self.results.absent[name] = str(error)
            say(f"{name}: not measured: {error}")

    def _turn(self, number: int, names: list[str], site: Callable) -> None:
        try:
            with self._watch_kafka(names), site() as drivers:
                self._condition(names, drivers)
                for name in names if number % 2 == 0 else reversed(names):
                    self._cells(number, name, drivers[name])
        except Unavailable as error:
            self._absent(names, error)
        except Failed as error:
            for name in names:
                self._note(number, name, "turn", error)

    def _condition(self, names: list[str], drivers: dict) -> None:
        """Steady files are those of topics that were there before. Only Highwater recycles."""
        if self.options.files == "fresh" or names[0] not in OURS:
            return
        for producers in (self.load.producers, 1):
            topic, driver = f"before-{producers}", drivers[names[0]]
            driver.prepare(topic, self.load)
            rate = self.options.rate if producers == 1 else None
            driver.produce(topic, dataclasses.replace(self.load, rate=rate))
            driver.remove(topic)
            wait_for("the files of a deleted topic to be kept", driver.site.is_empty)

    @contextlib.contextmanager
    def _watch_kafka(self, names: list[str]) -> Iterator[None]:
        used, start = self._kafka_used(), time.monotonic()
        yield
        now = self._kafka_used()
        if used is not None and now is not None and not set(names) & set(KAFKAS):
            self.idle.append((now - used) / (time.monotonic() - start))

    def _kafka_used(self) -> float | None:
        """Nothing where no broker runs, or one has ended: its own turn will say so."""
        try:
            return cpu_seconds(self.warmed) if self.warmed else None
        except Failed:
            return None

    def _cells(self, number: int, name: str, driver: KafkaDriver | NatsDriver) -> None:
        with self._topic(driver, number, name) as topic:
            if topic and self._cell(number, name, "throughput", lambda: driver.produce(topic, self.load)):
                # What others have written lies in the page cache; what Highwater has does so once it was read.
                if self._cell(number, name, "consume", lambda: driver.consume(topic)):
                    self._cell(number, name, "consume again", lambda: driver.consume(topic))
        if isinstance(driver, KafkaDriver):
            with self._topic(driver, number, name) as topic:
                if topic:
                    self._cell(number, name, "tail", lambda: driver.tail(topic, self.load))
        paced = dataclasses.replace(self.load, rate=self.options.rate)
        with self._topic(driver, number, name) as topic:
            if topic:
                self._cell(number, name, "latency", lambda: driver.produce(topic, paced))

    @contextlib.contextmanager
    def _topic(self, driver: KafkaDriver | NatsDriver, number: int, name: str) -> Iterator[str | None]:
        """A topic of its own for each measurement. Behind it the disk is at rest: what one peer left to be
        deleted, or in the page cache, must not be in the way of the next one."""
        self.topics += 1
        topic, before = f"peers-{self.topics}", disk_bytes(driver.site.folder)
        try:
            driver.prepare(topic, self.load)
        except Failed as error:
            self._note(number, name, "prepare", error)
            yield None
            return
        yield topic
        try:
            driver.remove(topic)
            kept = self.options.files == "steady" and name in OURS
            wait_for("the files of a deleted topic to be gone", driver.site.is_empty if kept else
                     lambda: disk_bytes(driver.site.folder) < before + LEFT_BYTES_MAX)
        except Failed as error:
            self._note(number, name, "remove", error)
        run(["sync"], seconds=SYNC_PATIENCE_S)

    def _cell(self, number: int, name: str, cell: str, measure: Callable[[], dict]) -> bool:
        say(f"run {number + 1} of {self.options.runs}: {name}: {cell}")
        try:
            report = measure()
        except Failed as error:
            self._note(number, name, cell, error)
            return False
        self.results.add(name, cell, report)
        self.lines.append({"kind": "cell", "run": number + 1, "peer": name, "cell": cell, "report": report})
        return True

    def _note(self, number: int, name: str, cell: str, error: Failed) -> None:
        say(f"{name}: {cell} failed: {error}")
        self.results.fail(name, cell, str(error))
        self.lines.append({"kind": "failure", "run": number + 1, "peer": name, "cell": cell, "why": str(error)})

    def print(self) -> None:
        names = [name for name in PEERS if name in self.options.only]
        theirs = [name for name in names if name not in OURS and name not in self.results.absent]
        print(f"medians of {self.options.runs} runs [least-most], {self.options.seconds:g} s each; records of "
              f"{self.options.record_bytes} bytes; latency at {self.options.rate:,} records/s, linger "
              f"{self.options.linger_ms} ms where Kafka's protocol is spoken")
        print(table(self.results, names))
        print()
        print(ratio_table(self.results, [name for name in OURS if name in names], theirs))
        if self.idle:
            print(f"\nKafka's brokers, kept warm, used {sum(self.idle) / len(self.idle):.2f} of a core "
                  "while others had their turn")
