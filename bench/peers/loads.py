"""What each peer is loaded with: the same records at the same rates, by the client that it needs.

A driver is one column of the comparison. Its `prepare` makes a topic (or stream) of that name,
`produce` and `consume` give the figures of `highwater --json bench`, `remove` frees the disk.
"""

import dataclasses
import json
import pathlib

from highwater_site import HighwaterSite
from kafka_site import KafkaSite
from nats_site import NatsSite
from processes import Failed, run, wait_for

# What a command may take beyond the time for which it sends.
PATIENCE_S = 90
CONSUMER = "reader"


@dataclasses.dataclass(frozen=True)
class Load:
    """What is sent in one measurement."""

    record_bytes: int
    partitions: int
    producers: int
    warm_up: float
    seconds: float
    rate: int | None = None
    linger_ms: int = 1


def last_line(text: str) -> dict:
    try:
        return json.loads(text.strip().rpartition("\n")[2])
    except ValueError as error:
        raise Failed(f"no figures in {text[:200]!r}") from error


class KafkaDriver:
    """`highwater bench`, at whatever speaks Kafka's protocol."""

    def __init__(self, binary: pathlib.Path, site: HighwaterSite | KafkaSite, durability: str,
                 configs: dict[str, str], ca: pathlib.Path | None = None):
        self.binary, self.site, self.configs = binary, site, configs
        self.transport = ["--transport", "quic", "--ca", ca] if ca else ["--transport", "tcp"]
        self.way = ["--bootstrap", site.bootstrap, *self.transport]
        self.measured = ["--durability", durability]
        for pid in site.servers.pids:
            self.measured += ["--server-pid", pid]

    def prepare(self, topic: str, load: Load) -> None:
        self.create(topic, load.partitions)
        # One that has not heard of the topic yet would tell a client that there is none.
        for address in self.site.bootstrap.split(","):
            wait_for(f"topic {topic} at {address}", lambda address=address: self._is_known(topic, address))

    def _is_known(self, topic: str, address: str) -> bool:
        try:
            self._run("topic", "describe", topic, "--bootstrap", address, *self.transport)
        except Failed:
            return False
        return True

    def create(self, topic: str, partitions: int) -> None:
        flags = [word for key, value in self.configs.items() for word in ("--config", f"{key}={value}")]
        self._run("topic", "create", topic, "--partitions", partitions, *flags, *self.way)

    def produce(self, topic: str, load: Load) -> dict:
        return last_line(self._run("bench", "produce", "--topic", topic, *produce_flags(load), *self.way,
                                   *self.measured, seconds=load.warm_up + load.seconds + PATIENCE_S))

    def consume(self, topic: str) -> dict:
        return last_line(self._run("bench", "consume", "--topic", topic, *self.way, *self.measured))

    def tail(self, topic: str, load: Load) -> dict:
        """The same load, and one consumer that reads it as it comes."""
        said = self._run("bench", "mixed", "--topic", topic, "--consumers", 1, *produce_flags(load), *self.way,
                         *self.measured, seconds=load.warm_up + load.seconds + PATIENCE_S)
        return last_line(said)["consumed"]

    def remove(self, topic: str) -> None:
        self._run("topic", "delete", topic, *self.way)

    def _run(self, *words, **options) -> str:
        return run([self.binary, "--json", *words], **options)


def produce_flags(load: Load) -> list:
    """As `highwater bench cluster` sends: in large batches for throughput, from one producer that lingers
    hardly or not at all for latency."""
    flags = ["--record-bytes", load.record_bytes, "--warm-up", load.warm_up, "--seconds", load.seconds,
             "--memory-bytes", 16 << 20]
    if load.rate is None:
        return [*flags, "--producers", load.producers, "--batch-bytes", 1 << 20, "--linger-ms", 5]
    return [*flags, "--rate", load.rate, "--producers", 1, "--batch-bytes", 256 << 10, "--linger-ms", load.linger_ms]


class NatsDriver:
    """Our own load generator, which speaks NATS's protocol."""

    def __init__(self, binary: pathlib.Path, site: NatsSite):
        self.binary, self.site, self.consumers = binary, site, 0
        self.pids = [word for pid in site.servers.pids for word in ("-server-pid", pid)]

    def prepare(self, stream: str, load: Load) -> None:
        self.site.create_stream(stream)

    def produce(self, stream: str, load: Load) -> dict:
        flags = ["-subject", stream, "-record-bytes", load.record_bytes, "-window", self.site.window,
                 "-rate", load.rate or 0, "-warm-up", f"{load.warm_up}s", "-duration", f"{load.seconds}s"]
        return self._run("produce", stream, *flags, seconds=load.warm_up + load.seconds + PATIENCE_S)

    def consume(self, stream: str) -> dict:
        # One that has read all reads nothing again.
        self.consumers += 1
        consumer = f"{CONSUMER}-{self.consumers}"
        self.site.create_consumer(stream, consumer)
        records = self.site.messages(stream)
        return self._run("consume", stream, "-stream", stream, "-consumer", consumer, "-records", records)

    def remove(self, stream: str) -> None:
        self.site.delete_stream(stream)

    def _run(self, action: str, stream: str, *words, **options) -> dict:
        address = self.site.leader(stream)
        return last_line(run([self.binary, action, "-address", address, *words, *self.pids], **options))


WARM_UP_SLICES_MIN = 6
WARM_UP_SLICES_MAX = 20
WARM_UP_GAIN = 1.05
WARM_UP_PATIENCE = 3
WARM_UP_RATE = 20_000


def warm(driver: KafkaDriver, load: Load, say) -> None:
    """Loads Java brokers until they are no faster for it: a cold one gives a third.

    Slices of what will be measured, until three in a row are less than 5 % faster than the best
    before them.
    """
    best, no_faster = 0.0, 0
    for number in range(1, WARM_UP_SLICES_MAX + 1):
        try:
            reached = warm_up_slice(driver, load, f"warm-up-{number}")
        except Failed as error:
            # Cold brokers may let the client wait too long. If it stays so, the measurements say it.
            say(f"warm-up {number} failed: {error}")
            continue
        say(f"warm-up {number}: {reached:.0f} MB/s")
        no_faster = no_faster + 1 if reached < WARM_UP_GAIN * best else 0
        if number >= WARM_UP_SLICES_MIN and no_faster >= WARM_UP_PATIENCE:
            break
        best = max(best, reached)


def warm_up_slice(driver: KafkaDriver, load: Load, topic: str) -> float:
    driver.prepare(topic, load)
    reached = driver.produce(topic, load)["bytes_per_second"] / 1e6
    driver.consume(topic)
    driver.produce(topic, dataclasses.replace(load, rate=WARM_UP_RATE, seconds=load.seconds / 2))
    driver.remove(topic)
    return reached


def wait_until_whole(driver: KafkaDriver) -> None:
    """Until a topic of three replicas can be made: all brokers are registered."""

    def is_whole() -> bool:
        # Java says nothing here when it is ready; `create` costs a process, so the port comes first.
        if not driver.site.is_listening():
            return False
        try:
            driver.create("whole", 1)
        except Failed:
            return False
        return True

    wait_for("all brokers", is_whole)
    driver.remove("whole")
