"""Highwater: three processes of `highwater start`, as `highwater bench cluster` has them."""

import pathlib

from processes import Servers, free_ports, run, wait_for

NODES = 3
# What `highwater init` adds to the base port for Kafka, peers and metrics.
ABOVE = [0, 100, 200]
# What is kept of deleted topics where files are steady: more than a run writes.
RECYCLE_BYTES = 8 << 30


class HighwaterSite:
    """Nodes of their own below a folder."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, servers: Servers, steady: bool):
        self.folder = folder
        kept = RECYCLE_BYTES if steady else 0
        base = free_ports([above + node for above in ABOVE for node in range(NODES)])
        run([binary, "init", folder / "cluster", "--nodes", NODES, "--base-port", base])
        self.bootstrap = ",".join(f"127.0.0.1:{base + node}" for node in range(NODES))
        self.ca = folder / "cluster/ca.pem"
        self.servers = servers
        for node in range(NODES):
            config = folder / f"cluster/node-{node}/highwater.toml"
            command = [binary, "--json", "start", "--config", config, "--set", f"node.recycle_bytes={kept}"]
            servers.start(command, folder / f"node-{node}.log", HIGHWATER_LOG="error")
        wait_for("a node", lambda: servers.have_printed('"event":"ready"'))

    def is_empty(self) -> bool:
        """Whether no topic's files are left but those that are kept: the controller's group stays."""
        groups = [self.folder / f"cluster/node-{node}/data/groups" for node in range(NODES)]
        return all(len(list(folder.iterdir())) <= 1 for folder in groups)
