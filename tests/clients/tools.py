"""What the checks have in common: commands that must succeed, and a consumer."""

import subprocess
import sys
import time


def run(command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stderr[-4000:]}")
    return done


def consume(bootstrap: str, topic: str, partitions: int) -> list[tuple[str, str]]:
    """Keys and values of a topic, each partition in order, by librdkafka."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused",
                         "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    found, ended, deadline = [], set(), time.monotonic() + 120
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"{len(found)} records, then silence"
        for message in consumer.consume(10_000, 1):
            if message.error() is None:
                found.append((message.key().decode(), message.value().decode()))
            elif message.error().name() == "_PARTITION_EOF":
                ended.add(message.partition())
            else:
                raise AssertionError(message.error())
    consumer.close()
    return found
