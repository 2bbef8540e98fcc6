#!/usr/bin/env python3
"""librdkafka against the deaths of leaders: three processes, kill -9, the flights.

    failover.py --binary target/debug/highwater --data ../shared/data [--set KEY=VALUE ...]

While an idempotent producer sends the flights, the process that leads a partition is killed, ten
times. The producer goes on by itself, every flight is there once, in order within its key; how
long nobody led is measured: from the kill to the first acknowledgement of a record that was sent
after it to a partition that the killed process had led.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from flights import Flights, carrier
from tools import consume, run

KILLS = 10
PARTITIONS = 6
TOPIC = "flights"

# How long a condition may take. Timing decides nothing; this only ends a check that hangs.
PATIENCE = 120

# librdkafka has a lot to say about brokers that die.
QUIET = {"log_level": 0}

# Rows a second: slow enough that the flights last for all kills.
RATE = 4_000
TICK = 0.005


def wait_for(what: str, look):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def free_base_port() -> int:
    """For `highwater init`: Kafka from there, peers 100 and metrics 200 above, TCP and UDP."""
    while True:
        base = random.randrange(10_000, 30_000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in (base + above + node for above in (0, 100, 200) for node in range(3)):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", port))
            return base


class Nodes:
    """Three processes of `highwater start`, on what `highwater init` has made."""

    def __init__(self, binary: str, folder: pathlib.Path, options: list[str]):
        self.binary, self.folder, self.options = binary, folder, options
        base = free_base_port()
        run([binary, "init", str(folder / "cluster"), "--base-port", str(base)])
        self.bootstrap = ",".join(f"127.0.0.1:{base + node}" for node in range(3))
        self.processes = {}
        for node in range(3):
            self.start(node)

    def start(self, node: int) -> None:
        config = self.folder / "cluster" / f"node-{node}" / "highwater.toml"
        flags = [flag for option in self.options for flag in ("--set", option)]
        with self.log(node).open("a") as log:
            self.processes[node] = subprocess.Popen(
                [self.binary, "--json", "start", "--config", str(config), *flags],
                stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.processes[node].stdout.readline()
        if not line or json.loads(line)["event"] != "ready":
            sys.exit(f"node {node} did not start\n{self.log(node).read_text()[-4000:]}")

    def log(self, node: int) -> pathlib.Path:
        return self.folder / f"node-{node}.log"

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes[node].wait()

    def stop(self) -> None:
        """Ends them well; then `log verify` finds nothing wrong."""
        for node, process in self.processes.items():
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE) == 0, f"node {node} ended with an error"
            run([self.binary, "log", "verify", str(self.folder / "cluster" / f"node-{node}" / "data")])

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


class Load(threading.Thread):
    """Sends the flights at a steady rate, as far as it may: each kill has its share of them."""

    def __init__(self, bootstrap: str, rows: list[str]):
        super().__init__()
        from confluent_kafka import Producer

        self.producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5,
                                  "enable.idempotence": True, **QUIET})
        self.rows, self.limit, self.errors, self.acknowledged = rows, 0, [], []

    def allow(self, share: int) -> None:
        self.limit = len(self.rows) * share // (KILLS + 1)

    def run(self) -> None:
        sent = 0
        while sent < len(self.rows):
            until = min(self.limit, sent + int(RATE * TICK))
            for row in self.rows[sent:until]:
                self.send(row)
            sent = until
            self.producer.poll(TICK)
        left = self.producer.flush(PATIENCE)
        if left:
            self.errors.append(f"{left} records were not acknowledged")

    def send(self, row: str) -> None:
        sent_at = time.monotonic()

        def delivered(error, message):
            if error:
                self.errors.append(error)
            else:
                self.acknowledged.append((message.partition(), sent_at, time.monotonic()))

        self.producer.produce(TOPIC, row, carrier(row), on_delivery=delivered)


class Deaths:
    def __init__(self, nodes: Nodes, load: Load):
        from confluent_kafka.admin import AdminClient

        self.nodes, self.load = nodes, load
        self.admin = AdminClient({"bootstrap.servers": nodes.bootstrap, **QUIET})

    def partitions(self) -> dict:
        from confluent_kafka import KafkaException

        with contextlib.suppress(KafkaException):
            return self.admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        return {}

    def whole(self) -> bool:
        partitions = self.partitions().values()
        return len(partitions) == PARTITIONS and all(
            it.leader >= 0 and len(it.isrs) == len(it.replicas) == 3 for it in partitions)

    def one(self, kill: int) -> float:
        """Seconds from the death of a leader to the first acknowledgement by the next."""
        wait_for("every partition to be led and its replicas reachable", self.whole)
        before = len(self.load.acknowledged)
        self.load.allow(kill + 1)
        wait_for("the load to go on", lambda: len(self.load.acknowledged) > before + 1_000)
        partitions = self.partitions()
        # Not every partition has many flights: their keys are the carriers.
        counts = collections.Counter(of for of, _, _ in self.load.acknowledged[before:])
        common = counts.most_common(3)
        partition, _ = common[kill % len(common)]
        leader = partitions[partition].leader
        led = {number for number, it in partitions.items() if it.leader == leader}
        known = len(self.load.acknowledged)
        killed_at = time.monotonic()
        self.nodes.kill(leader)
        first = wait_for("an acknowledgement by a new leader", lambda: next(
            (at for of, sent, at in self.load.acknowledged[known:] if of in led and sent >= killed_at), None))
        self.nodes.start(leader)
        return first - killed_at


def check(binary: str, flights: Flights, folder: pathlib.Path, options: list[str]) -> None:
    nodes = Nodes(binary, folder, options)
    with contextlib.ExitStack() as stack:
        stack.callback(nodes.end)
        run([binary, "topic", "create", TOPIC, "--partitions", str(PARTITIONS), "--bootstrap", nodes.bootstrap],
            env={**os.environ, "HIGHWATER_CA": str(folder / "cluster" / "ca.pem")})
        load = Load(nodes.bootstrap, flights.rows)
        load.daemon = True
        load.start()
        deaths, times = Deaths(nodes, load), []
        for kill in range(KILLS):
            times.append(deaths.one(kill))
        load.allow(KILLS + 1)
        load.join()
        assert not load.errors, load.errors[:3]
        flights.check_partitions(consume(nodes.bootstrap, TOPIC, PARTITIONS))
        nodes.stop()
    print(f"librdkafka, {KILLS} kills of a leader, {len(flights.rows)} flights: without a leader for "
          f"median {statistics.median(times):.2f} s, maximum {max(times):.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of flights.csv.gz and its truth")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of all nodes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="highwater-failover-") as folder:
        check(arguments.binary, Flights(arguments.data), pathlib.Path(folder), arguments.set)


if __name__ == "__main__":
    main()
