"""Servers of one site: started on free ports of loopback, ended by their ids."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable

# Below what the system itself gives away.
PORTS = range(10_000, 30_000)
PORT_SEARCHES_MAX = 1_000
START_PATIENCE_S = 90
STOP_PATIENCE_S = 10
COMMAND_PATIENCE_S = 120
POLL_S = 0.05
LOG_TAIL_BYTES = 2_000
# What stat(2) counts in.
BLOCK_BYTES = 512


class Unavailable(Exception):
    """Why a peer cannot be had here. Said in its row of the table."""


class Failed(Exception):
    """Why a measurement has no figure. Said in its place in the table."""


def is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_ports(offsets: list[int]) -> int:
    """A port from which on all that lie `offsets` above it are free."""
    for _ in range(PORT_SEARCHES_MAX):
        base = random.choice(PORTS)
        if all(is_free(base + offset) for offset in offsets):
            return base
    raise Failed("no free ports on 127.0.0.1")


def wait_for(what: str, is_so: Callable[[], bool], seconds: float = START_PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(POLL_S)


def run(command: list, seconds: float = COMMAND_PATIENCE_S, **options) -> str:
    """What a command prints. One that fails or takes longer is an error."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, **options)
    except FileNotFoundError as error:
        raise Failed(f"{words[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(words[:4])}: longer than {seconds} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it does not say why"]
        raise Failed(f"{' '.join(words[:4])}: {said[-1]}")
    return done.stdout


class Server:
    """A process. What it prints goes to a file beside its data."""

    def __init__(self, command: list, log: pathlib.Path, environment: dict[str, str]):
        self.log = log
        with log.open("wb") as out:
            # In a session of its own: Ctrl-C is for the program, which then ends its servers.
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **environment})

    def check(self) -> None:
        if self.process.poll() is not None:
            raise Failed(f"a server ended with {self.process.returncode}: {self.printed()[-LOG_TAIL_BYTES:].strip()}")

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def tell_to_end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        try:
            self.process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Servers:
    """The processes of a site. As a context, it ends them whatever happens."""

    def __init__(self):
        self.all: list[Server] = []

    def start(self, command: list, log: pathlib.Path, **environment: str) -> None:
        self.all.append(Server(command, log, environment))

    @property
    def pids(self) -> list[int]:
        return [server.process.pid for server in self.all]

    def have_printed(self, words: str) -> bool:
        """Whether all of them have. That one has ended is an error."""
        for server in self.all:
            server.check()
        return all(words in server.printed() for server in self.all)

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_) -> None:
        for server in self.all:
            server.tell_to_end()
        deadline = time.monotonic() + STOP_PATIENCE_S
        for server in self.all:
            server.end(deadline)


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of these processes until now (proc_pid_stat(5))."""
    try:
        stats = [pathlib.Path(f"/proc/{pid}/stat").read_text() for pid in pids]
    except OSError as error:
        raise Failed("a server has ended") from error
    return sum(map(ticks, stats)) / os.sysconf("SC_CLK_TCK")


def disk_bytes(folder: pathlib.Path) -> int:
    """What lies below a folder. Files that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * BLOCK_BYTES
    return total


def ticks(stat: str) -> int:
    """User and system time: fields 14 and 15. The name, in brackets, may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
