"""Apache Kafka: three brokers on loopback, each broker and controller (KRaft)."""

import base64
import pathlib
import shutil
import uuid

from processes import Failed, Servers, Unavailable, free_ports, is_free, run

BROKERS = 3
VERSION = "4.3.0"

# What bin/kafka-server-start.sh gives a broker.
JAVA_OPTIONS = ["-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent",
                "-Djava.awt.headless=true"]
LOGGING = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]


def jars(cache: pathlib.Path, version: str) -> pathlib.Path:
    """The folder of the broker's jars, brought from Maven Central where they are not yet here."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise Unavailable(f"no {program} here")
    folder = cache / f"kafka-{version}"
    if not folder.exists():
        pom, part = pathlib.Path(__file__).parent / "kafka/pom.xml", cache / f"kafka-{version}.part"
        try:
            run(["mvn", "-q", "-B", "-f", pom, f"-Dkafka.version={version}", "dependency:copy-dependencies",
                 f"-DoutputDirectory={part.resolve()}", "-DincludeScope=runtime"], seconds=600)
        except Failed as error:
            raise Unavailable(f"Maven does not bring Kafka {version}: {error}") from error
        part.rename(folder)
    return folder


def properties(node: int, base: int, folder: pathlib.Path) -> dict[str, object]:
    """server.properties of one broker. What is not here is as Kafka has it."""
    controllers = [f"{id}@127.0.0.1:{base + BROKERS + id}" for id in range(BROKERS)]
    return {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(controllers),
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listeners": f"PLAINTEXT://127.0.0.1:{base + node},CONTROLLER://127.0.0.1:{base + BROKERS + node}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{base + node}",
        "log.dirs": folder / f"broker-{node}",
        "default.replication.factor": BROKERS,
        "min.insync.replicas": 2,
        "offsets.topic.replication.factor": BROKERS,
        "transaction.state.log.replication.factor": BROKERS,
        "transaction.state.log.min.isr": 2,
        "auto.create.topics.enable": "false",
        # The files of a deleted topic would lie on the disk for a minute.
        "log.segment.delete.delay.ms": 1000,
    }


def properties_text(settings: dict[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class KafkaSite:
    """Brokers of their own below a folder."""

    def __init__(self, jars: pathlib.Path, folder: pathlib.Path, servers: Servers):
        self.folder = folder
        self.class_path = f"{jars.resolve()}/*"
        base = free_ports(list(range(2 * BROKERS)))
        self.ports = range(base, base + BROKERS)
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        cluster = cluster_id()
        files = [self._format(node, base, cluster) for node in range(BROKERS)]
        self.servers = servers
        for file in files:
            command = ["java", *JAVA_OPTIONS, *LOGGING, "-cp", self.class_path, "kafka.Kafka", file]
            servers.start(command, file.with_suffix(".log"))

    def _format(self, node: int, base: int, cluster: str) -> pathlib.Path:
        file = self.folder / f"broker-{node}.properties"
        file.write_text(properties_text(properties(node, base, self.folder)))
        run(["java", *LOGGING, "-cp", self.class_path, "kafka.tools.StorageTool", "format",
             "--cluster-id", cluster, "--config", file])
        return file

    def is_listening(self) -> bool:
        """Whether all ports are taken. That a broker has ended is an error."""
        return self.servers.have_printed("") and not any(is_free(port) for port in self.ports)
