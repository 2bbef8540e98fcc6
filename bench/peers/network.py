#!/usr/bin/env python3
"""Highwater on networks of small and of large packets, made on this machine: QUIC beside TCP.

    network.py --runs 5 --seconds 3 --dir /var/lib

Three nodes and a client have a network namespace each, joined by a bridge over pairs of veth(4)
whose MTU is 1,500 or 9,000. All links, of nodes and of clients, are QUIC or all are TCP (with TLS
between nodes). Each network has a cluster of its own; they take turns, so that what the machine does
meanwhile hurts all of them. Needs root, for ip-netns(8). Namespaces, servers and folders are gone
when it ends, also by Ctrl-C.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from processes import Failed, Servers, run, wait_for
from report import Spread, all_cpu
from run import ROOT, WRITTEN_MAX, interrupt

NODES = 3
BASE_PORT = 9_092
# What is kept of deleted topics, so that each run but the first writes into files of one before.
RECYCLE_BYTES = 8 << 30
# Files of a topic, in bytes: what is prepared ahead must find room on one disk three times.
SEGMENT_BYTES = 128 << 20
PATIENCE_S = 120


@dataclasses.dataclass(frozen=True)
class Kind:
    """A network and what is spoken on it."""

    transport: str
    mtu: int
    # The largest UDP payload that is tried; ten of up to 6,500 go into one system call.
    datagram_bytes: int

    @property
    def name(self) -> str:
        payload = f", payloads of {self.datagram_bytes}" if self.transport == "quic" else ""
        return f"{self.transport}, MTU {self.mtu}{payload}"


KINDS = [
    Kind("quic", 1_500, 1_452),
    Kind("tcp", 1_500, 1_452),
    Kind("quic", 9_000, 6_500),
    Kind("quic", 9_000, 8_952),
    Kind("tcp", 9_000, 6_500),
]


class Network:
    """Namespaces for nodes and a client, whose packets cross a bridge in one more."""

    def __init__(self, name: str, mtu: int):
        self.name, self.made = name, []
        try:
            self._make(mtu)
        except BaseException:
            self.remove()
            raise

    def _make(self, mtu: int) -> None:
        self._namespace("switch")
        run([*self.within("switch"), "ip", "link", "add", "bridge", "mtu", mtu, "type", "bridge"])
        run([*self.within("switch"), "ip", "link", "set", "bridge", "up"])
        for host in range(NODES + 1):
            self._namespace(host)
            run(["ip", "link", "add", "eth0", "mtu", mtu, "netns", self._full(host), "type", "veth",
                 "peer", "name", f"port{host}", "mtu", mtu, "netns", self._full("switch")])
            run([*self.within("switch"), "ip", "link", "set", f"port{host}", "master", "bridge", "up"])
            run([*self.within(host), "ip", "address", "add", f"{self.address(host)}/24", "dev", "eth0"])
            run([*self.within(host), "ip", "link", "set", "eth0", "up"])

    def _full(self, host: int | str) -> str:
        return f"{self.name}-{host}"

    def _namespace(self, host: int | str) -> None:
        run(["ip", "netns", "add", self._full(host)])
        self.made.append(self._full(host))
        run([*self.within(host), "ip", "link", "set", "lo", "up"])

    @staticmethod
    def address(host: int) -> str:
        return f"10.77.0.{host + 1}"

    def within(self, host: int | str) -> list[str]:
        """What runs a command there: the node of this number, or the client, which is behind them."""
        return ["ip", "netns", "exec", self._full(host)]

    def remove(self) -> None:
        while self.made:
            with contextlib.suppress(Failed):
                run(["ip", "netns", "delete", self.made.pop()])


class Site:
    """A cluster on a network of its own."""

    def __init__(self, kind: Kind, network: Network, binary: pathlib.Path, folder: pathlib.Path, servers: Servers):
        self.kind, self.network, self.binary, self.servers, self.topics = kind, network, binary, servers, 0
        hosts = ",".join(network.address(node) for node in range(NODES))
        # Each has an address of its own, so all have the same ports.
        run([binary, "init", folder / "cluster", "--nodes", NODES, "--host", hosts, "--base-port", BASE_PORT])
        bootstrap = ",".join(f"{network.address(node)}:{BASE_PORT}" for node in range(NODES))
        self.way = ["--bootstrap", bootstrap, "--transport", kind.transport, "--ca", folder / "cluster/ca.pem",
                    "--datagram-bytes", kind.datagram_bytes]
        settings = {"peer_transport": kind.transport, "quic.datagram_bytes": kind.datagram_bytes,
                    "node.recycle_bytes": RECYCLE_BYTES}
        chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        for node in range(NODES):
            config = folder / f"cluster/node-{node}/highwater.toml"
            servers.start([*network.within(node), binary, "--json", "start", "--insecure-no-auth", "--config", config,
                           *chosen], folder / f"node-{node}.log", HIGHWATER_LOG="error")
        wait_for("a node", lambda: servers.have_printed('"event":"ready"'))

    def measure(self, options: argparse.Namespace) -> dict:
        """What `highwater bench produce` says of a topic of its own."""
        self.topics += 1
        topic = f"run-{self.topics}"
        self._client("topic", "create", topic, "--partitions", 6, "--config", f"segment.bytes={SEGMENT_BYTES}")
        pids = [word for pid in self.servers.pids for word in ("--server-pid", pid)]
        said = self._client(
            "bench", "produce", "--topic", topic, "--producers", 4, "--record-bytes", 1_024, "--batch-bytes", 1 << 20,
            "--memory-bytes", 16 << 20, "--warm-up", options.warm_up, "--seconds", options.seconds, *pids,
            "--durability", "on disk (synced) on a quorum")
        self._client("topic", "delete", topic)
        return json.loads(said.strip().rpartition("\n")[2])

    def _client(self, *words) -> str:
        return run([*self.network.within(NODES), self.binary, "--json", *words, *self.way], seconds=PATIENCE_S)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; the median counts [5]")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each is counted [3]")
    parser.add_argument("--warm-up", type=float, default=2.0, help="how long nothing is counted before [2]")
    parser.add_argument("--dir", type=pathlib.Path, default=".", help="on the disk to use; memory is none")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/highwater")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    if not os.access(options.binary, os.X_OK):
        parser.error(f"{options.binary} is not there: cargo build --release")
    if os.geteuid() != 0:
        parser.error("making network namespaces needs root")
    if options.runs <= 0 or options.seconds <= 0 or options.warm_up < 0:
        parser.error("runs and seconds are above 0")
    need = WRITTEN_MAX * (options.seconds + options.warm_up) + len(KINDS) * NODES * RECYCLE_BYTES / 4
    if shutil.disk_usage(options.dir).free < need:
        parser.error(f"{options.dir} has less than {need / 1e9:.0f} GB free, which may be written")
    return options


def show(kind: Kind, figures: list[dict]) -> str:
    rate = Spread.of([it["bytes_per_second"] / 1e6 for it in figures]).text(0)
    both = Spread.of([all_cpu(it) for it in figures]).text(1)
    return f"{kind.name:38} {rate:>18} {both:>18}"


def measure(options: argparse.Namespace) -> None:
    figures: dict[Kind, list[dict]] = {kind: [] for kind in KINDS}
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="highwater-network-", dir=options.dir)))
        sites = []
        for number, kind in enumerate(KINDS):
            network = Network(f"highwater-{os.getpid()}-{number}", kind.mtu)
            stack.callback(network.remove)
            servers = stack.enter_context(Servers())
            own = folder / str(number)
            own.mkdir()
            sites.append(Site(kind, network, options.binary, own, servers))
        # The first run fills the files that those after it are written into.
        for turn in range(options.runs + 1):
            for site in sites[turn % len(sites):] + sites[:turn % len(sites)]:
                figure = site.measure(options)
                if turn > 0:
                    figures[site.kind].append(figure)
                print(f"run {turn} of {options.runs}, {site.kind.name}: {figure['bytes_per_second'] / 1e6:.0f} MB/s",
                      file=sys.stderr, flush=True)
    print(f"{'all links':38} {'MB/s':>18} {'CPU s/GB, all':>18}")
    for kind in KINDS:
        print(show(kind, figures[kind]))


def main() -> None:
    options = parse()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    print("durability: on disk (synced) on a quorum before the acknowledgement; all processes share this machine "
          "and one disk; files steady", flush=True)
    try:
        measure(options)
    except KeyboardInterrupt:
        sys.exit("interrupted; all servers are ended, their folders and namespaces removed")
    except Failed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
