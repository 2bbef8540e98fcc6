"""The peers that there are, what an acknowledgement of each means, and how it is started."""

import argparse
import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import kafka_site
import nats_site
from highwater_site import HighwaterSite
from loads import KafkaDriver, Load, NatsDriver, wait_until_whole, warm
from processes import Servers

# Files of a topic, as in `highwater bench cluster`.
SEGMENT = {"segment.bytes": str(128 << 20)}
# The topic's name for log.flush.interval.messages; it leaves the cluster's own topics alone.
FLUSH_EACH = {"flush.messages": "1"}

SYNCED = "on disk (synced) on a quorum before the acknowledgement"
CACHED = "in the page cache of {} before the acknowledgement, not synced"
PEERS = {
    "highwater tcp": SYNCED,
    "highwater quic": SYNCED,
    "kafka": CACHED.format("all in-sync replicas"),
    "kafka synced": "on disk (flush.messages=1) on all in-sync replicas before the acknowledgement",
    "nats r1": CACHED.format("one server"),
    "nats r1 synced": "on disk (sync_interval: always) on one server before the acknowledgement",
    "nats r3": CACHED.format("a quorum"),
    "nats r3 synced": "on disk (sync_interval: always) on a quorum before the acknowledgement",
}
OURS = ["highwater tcp", "highwater quic"]
KAFKAS = ["kafka", "kafka synced"]
# Servers, and whether each message is synced.
NATS = {"nats r1": (1, False), "nats r1 synced": (1, True), "nats r3": (3, False), "nats r3 synced": (3, True)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def folder_of(options: argparse.Namespace, name: str) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix=f"highwater-peers-{name}-", dir=options.dir) as folder:
        yield pathlib.Path(folder).resolve()


@contextlib.contextmanager
def highwater(options: argparse.Namespace) -> Iterator[dict]:
    with folder_of(options, "highwater") as folder, Servers() as servers:
        site = HighwaterSite(options.binary, folder, servers, options.files == "steady")
        yield {
            "highwater tcp": KafkaDriver(options.binary, site, SYNCED, SEGMENT),
            "highwater quic": KafkaDriver(options.binary, site, SYNCED, SEGMENT, ca=site.ca),
        }


@contextlib.contextmanager
def kafka(options: argparse.Namespace, load: Load) -> Iterator[dict]:
    jars = kafka_site.jars(options.cache, options.kafka_version)
    with folder_of(options, "kafka") as folder, Servers() as servers:
        site = kafka_site.KafkaSite(jars, folder, servers)
        drivers = {
            "kafka": KafkaDriver(options.binary, site, PEERS["kafka"], {}),
            "kafka synced": KafkaDriver(options.binary, site, PEERS["kafka synced"], FLUSH_EACH),
        }
        wait_until_whole(drivers["kafka"])
        warm(drivers["kafka"], load, lambda text: say(f"kafka: {text}"))
        yield drivers


@contextlib.contextmanager
def nats(options: argparse.Namespace, name: str) -> Iterator[dict]:
    server = nats_site.server_binary(options.cache, options.nats_version)
    client = nats_site.load_binary(options.cache)
    nodes, sync_always = NATS[name]
    with folder_of(options, "nats") as folder, Servers() as servers:
        site = nats_site.NatsSite(server, nodes, sync_always, folder, servers)
        yield {name: NatsDriver(client, site)}
