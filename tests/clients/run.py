#!/usr/bin/env python3
"""Real clients against `highwater dev`: kcat, confluent-kafka, Kafka's Java client, ours.

    run.py --binary target/debug/highwater --data ../shared/data [--java DIR] [--only NAME ...]

Every check writes the flights into a topic of its own and compares what comes back with the
ground truth. Ports are free ones, folders temporary; the server is ended by its id.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from flights import Flights, carrier
from tools import consume, run

CODECS = ["gzip", "snappy", "lz4", "zstd"]


class Cluster:
    """`highwater dev` in a temporary folder."""

    def __init__(self, binary: str, folder: pathlib.Path, *flags: str):
        self.binary, self.folder = binary, folder
        self.process = subprocess.Popen(
            [binary, "dev", "--json", "--port", "0", "--dir", str(folder), *flags],
            stdout=subprocess.PIPE,
            stderr=(folder.parent / "dev.log").open("w"),
            text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            sys.exit((folder.parent / "dev.log").read_text() + "\nhighwater dev did not start")
        ready = json.loads(line)
        self.bootstrap, self.ca = ready["bootstrap"], ready["ca"]

    def run(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        command = [self.binary, *arguments]
        if arguments[0] != "log":
            command += ["--bootstrap", self.bootstrap]
        return run(command, env={**os.environ, "HIGHWATER_CA": self.ca}, **options)

    def topic(self, name: str, partitions: int, *configs: str) -> str:
        flags = [flag for config in configs for flag in ("--config", config)]
        self.run("topic", "create", name, "--partitions", str(partitions), *flags)
        return name

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=60) == 0, "dev ended with an error"


def records(text: str) -> list[tuple[str, str]]:
    """Lines of `key TAB value`."""
    return [tuple(line.split("\t", 1)) for line in text.splitlines()]


class Checks:
    def __init__(self, cluster: Cluster, flights: Flights, folder: pathlib.Path, java: str | None):
        self.cluster, self.flights, self.folder, self.java = cluster, flights, folder, java
        self.file = flights.write(folder / "flights.csv")
        self.keyed = flights.write_keyed(folder / "flights.tsv")

    # kcat: librdkafka 2.0, from Debian. Idempotent, because without that librdkafka itself
    # changes the order of batches when one of them has to be sent again.

    def kcat_produce(self, topic: str, *flags: str) -> None:
        run(["kcat", "-P", "-b", self.cluster.bootstrap, "-t", topic, "-K", "\t", "-l", str(self.keyed),
             "-X", "acks=all", "-X", "enable.idempotence=true", *flags])

    def kcat_consume(self, topic: str, partition: int) -> list[tuple[str, str]]:
        done = run(["kcat", "-C", "-b", self.cluster.bootstrap, "-t", topic, "-p", str(partition),
                    "-o", "beginning", "-e", "-q", "-K", "\t"])
        return records(done.stdout)

    def kcat_readme(self) -> None:
        """README's screen as it stands, but for the port."""
        readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
        lines = [line.strip() for line in readme.splitlines() if line.startswith("    ") and "kcat -" in line]
        assert len(lines) == 2, lines
        first = self.cluster.bootstrap.split(",")[0]
        lines = [line.replace("127.0.0.1:9092", first) for line in lines]
        assert all(first in line for line in lines), lines
        read = [run(["sh", "-c", line]).stdout for line in lines][-1]
        assert read == "hello\n", read

    def kcat_one_partition(self) -> None:
        topic = self.cluster.topic("kcat-one", 1)
        self.kcat_produce(topic)
        self.flights.check_one_partition([row for _, row in self.kcat_consume(topic, 0)])

    def kcat_six_partitions(self) -> None:
        topic = self.cluster.topic("kcat-six", 6)
        self.kcat_produce(topic)
        self.flights.check_partitions([r for p in range(6) for r in self.kcat_consume(topic, p)])

    def kcat_codecs(self) -> None:
        for codec in CODECS:
            topic = self.cluster.topic(f"kcat-{codec}", 6)
            self.kcat_produce(topic, "-z", codec)
            self.flights.check_partitions([r for p in range(6) for r in self.kcat_consume(topic, p)])

    # confluent-kafka: librdkafka of today

    def confluent_produce(self, topic: str, **config) -> None:
        from confluent_kafka import Producer

        errors = []
        settings = {"bootstrap.servers": self.cluster.bootstrap, "acks": "all", "linger.ms": 20,
                    "queue.buffering.max.messages": 1_000_000}
        producer = Producer({**settings, **config})
        for row in self.flights.rows:
            producer.produce(topic, row, carrier(row), on_delivery=lambda e, _: e and errors.append(e))
            producer.poll(0)
        assert producer.flush(120) == 0, "not everything was acknowledged"
        assert not errors, errors[:3]

    def confluent_consume(self, topic: str, partitions: int) -> list[tuple[str, str]]:
        return consume(self.cluster.bootstrap, topic, partitions)

    def confluent_idempotent(self) -> None:
        topic = self.cluster.topic("confluent-idempotent", 6)
        self.confluent_produce(topic, **{"enable.idempotence": True})
        self.flights.check_partitions(self.confluent_consume(topic, 6))

    def confluent_codecs(self) -> None:
        for codec in CODECS:
            topic = self.cluster.topic(f"confluent-{codec}", 6)
            self.confluent_produce(topic, **{"compression.codec": codec, "enable.idempotence": True})
            self.flights.check_partitions(self.confluent_consume(topic, 6))

    # Kafka's own client, in Java

    def java_client(self) -> None:
        topic = self.cluster.topic("java", 6)
        command = ["java", "-cp", f"{self.java}/clients-check-1.jar:{self.java}/lib/*", "highwater.Flights"]
        run([*command, "produce", self.cluster.bootstrap, topic, str(self.file)])
        done = run([*command, "consume", self.cluster.bootstrap, topic])
        self.flights.check_partitions([tuple(line.split("\t")[1:]) for line in done.stdout.splitlines()])

    # ours, over QUIC and over TCP

    def rust(self, transport: str) -> None:
        topic = self.cluster.topic(f"rust-{transport}", 6)
        flags = ["--transport", transport]
        self.cluster.run("produce", topic, "--file", str(self.file), "--csv-key", "carrier", *flags)
        done = self.cluster.run("consume", topic, "--until-end", "--format", "%k\t%v", *flags)
        self.flights.check_partitions(records(done.stdout))

    def rust_quic(self) -> None:
        self.rust("quic")

    def rust_tcp(self) -> None:
        self.rust("tcp")


def check_codecs_on_disk(cluster: Cluster) -> None:
    """The codec bits of every batch, as `log dump` reads them from the stopped nodes' files."""
    found = collections.defaultdict(set)
    for node in sorted(cluster.folder.glob("node-*")):
        dump = run([cluster.binary, "--json", "log", "dump", str(node / "data")])
        for line in dump.stdout.splitlines():
            entry = json.loads(line)
            if entry.get("topic") and entry.get("codec"):
                found[entry["topic"]].add(entry["codec"])
    for client in ["kcat", "confluent"]:
        for codec in CODECS:
            topic = f"{client}-{codec}"
            if topic in found:
                # librdkafka sends a batch as it is where the codec would not make it smaller.
                assert codec in found[topic] <= {codec, "none"}, f"{topic}: {found[topic]}"
                print(f"  {topic}: {codec} on disk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of flights.csv.gz and its truth")
    parser.add_argument("--java", help="the target folder of tests/clients/java; without it, no Java")
    parser.add_argument("--only", nargs="*", help="names of checks")
    parser.add_argument("--dev", nargs=argparse.REMAINDER, default=[], help="further flags of `highwater dev`")
    arguments = parser.parse_args()
    names = ["kcat_readme", "kcat_one_partition", "kcat_six_partitions", "kcat_codecs", "confluent_idempotent",
             "confluent_codecs", "rust_quic", "rust_tcp", *(["java_client"] if arguments.java else [])]
    names = arguments.only or names
    with tempfile.TemporaryDirectory(prefix="highwater-clients-") as folder:
        folder = pathlib.Path(folder)
        cluster = Cluster(arguments.binary, folder / "cluster", *arguments.dev)
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: cluster.process.poll() is None and cluster.process.kill())
            checks = Checks(cluster, Flights(arguments.data), folder, arguments.java)
            for name in names:
                start = time.monotonic()
                getattr(checks, name)()
                print(f"{name}: ok, {time.monotonic() - start:.1f} s", flush=True)
            cluster.stop()
            if "kcat_codecs" in names or "confluent_codecs" in names:
                check_codecs_on_disk(cluster)
    print(f"{len(names)} passed, 0 failed")


if __name__ == "__main__":
    main()
