#!/usr/bin/env python3
"""A client of another library for `chaos`: writes or reads until its input is closed.

    chaos_client.py produce|consume --library librdkafka|kafka-python --bootstrap ... ...

It says line by line what it is told; times are nanoseconds of the clock that all processes of a
machine share, partitions are numbers of the list that it was given:

    S TIME PARTITION VALUE            a record is about to be sent
    A TIME PARTITION VALUE OFFSET     it was acknowledged
    U TIME VALUE                      nobody knows what became of it
    E TIME PARTITION                  what has no end yet is sent again under another epoch
    R TIME PARTITION FROM OFFSET:VALUE ...    records were read, from a position on
"""

import argparse
import collections
import logging
import random
import re
import sys
import threading
import time

# Longer than any fault lasts, so that few records end without anybody knowing.
DELIVERY_TIMEOUT_MS = 120_000
TICK = 0.05
KEYS = 100
# No value of a record that anybody sends.
NOBODYS = 2**64 - 1

OUTPUT = threading.Lock()


def say(*words) -> None:
    with OUTPUT:
        sys.stdout.write(" ".join(map(str, words)) + "\n")


def now() -> int:
    return time.monotonic_ns()


def value_of(data) -> int:
    number, colon, rest = (data or b"").partition(b":")
    is_whole = colon and number.isdigit() and not rest.strip(b"x")
    return int(number) if is_whole else NOBODYS


class Epochs(logging.Handler):
    """Tells of partitions for which librdkafka begins a new epoch.

    When a request is refused because the one before it has failed, librdkafka adds one to its epoch, and
    sends what is open in every partition again, with sequence numbers from 0: also what a broker has
    appended and not yet acknowledged. No broker can know that again. It says so in its log, before the
    acknowledgements of what it has sent again.
    """

    CHANGED = re.compile(r"NEWPID .*: (\S+) \[(\d+)\] changed PID\{Id")

    def __init__(self, arguments):
        super().__init__()
        self.places = {partition: place for place, partition in enumerate(arguments.partitions)}
        # What it has said last, in case that it gives up.
        self.last = collections.deque(maxlen=500)

    def emit(self, record) -> None:
        self.last.append(record.getMessage())
        changed = self.CHANGED.search(record.getMessage())
        if changed:
            say("E", now(), self.places[changed[1], int(changed[2])])


class Librdkafka:
    def __init__(self, bootstrap):
        self.config = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 1_000,
                       "socket.timeout.ms": 10_000}

    def producer(self, arguments):
        from confluent_kafka import KafkaException, Producer

        self.gave_up = KafkaException
        logger = logging.getLogger("librdkafka")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        self.epochs = Epochs(arguments)
        logger.addHandler(self.epochs)
        self.kafka = Producer({**self.config, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
                               "message.timeout.ms": DELIVERY_TIMEOUT_MS, "queue.buffering.max.messages": 20_000,
                               "debug": "eos", "log_level": 7}, logger=logger)
        return self

    def send(self, topic, partition, key, data, done) -> None:
        def delivered(error, message):
            done(None if error else message.offset())

        while True:
            try:
                return self.kafka.produce(topic, data, key, partition, on_delivery=delivered)
            except BufferError:
                self.kafka.poll(0.1)
            except self.gave_up as why:
                self.kafka.poll(1)
                raise SystemExit("\n".join([*self.epochs.last, f"{why}"])) from why

    def tick(self) -> None:
        self.kafka.poll(0)

    def finish(self) -> None:
        self.kafka.flush(DELIVERY_TIMEOUT_MS / 1_000 + 30)

    def consumer(self, partitions):
        from confluent_kafka import Consumer, TopicPartition

        self.kafka = Consumer({**self.config, "group.id": "unused", "enable.auto.commit": False,
                               "auto.offset.reset": "error"})
        self.kafka.assign([TopicPartition(topic, number, 0) for topic, number in partitions])
        return self

    def records(self):
        for message in self.kafka.consume(1_000, 0.1):
            if message.error() is None:
                yield message.topic(), message.partition(), message.offset(), message.value()
            elif message.error().name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
                raise SystemExit(f"a position was refused: {message.error()}")


class KafkaPython:
    def __init__(self, bootstrap):
        self.config = {"bootstrap_servers": bootstrap.split(","), "request_timeout_ms": 10_000,
                       "reconnect_backoff_max_ms": 1_000, "bootstrap_timeout_ms": 60_000}

    def producer(self, _arguments):
        from kafka import KafkaProducer

        self.kafka = KafkaProducer(**self.config, acks="all", enable_idempotence=True, linger_ms=5,
                                   max_block_ms=DELIVERY_TIMEOUT_MS, delivery_timeout_ms=DELIVERY_TIMEOUT_MS)
        return self

    def send(self, topic, partition, key, data, done) -> None:
        from kafka.errors import KafkaError

        try:
            future = self.kafka.send(topic, data, key, partition=partition)
        except KafkaError as error:
            print(error, file=sys.stderr)
            return done(None)
        future.add_callback(lambda metadata: done(metadata.offset))
        future.add_errback(lambda error: (print(repr(error), file=sys.stderr), done(None)))

    def tick(self) -> None:
        pass

    def finish(self) -> None:
        from kafka.errors import KafkaError

        try:
            self.kafka.flush(DELIVERY_TIMEOUT_MS / 1_000 + 30)
        except KafkaError as error:
            print(error, file=sys.stderr)

    def consumer(self, partitions):
        from kafka import KafkaConsumer, TopicPartition

        self.kafka = KafkaConsumer(**self.config, enable_auto_commit=False, auto_offset_reset="none",
                                   max_poll_records=1_000)
        assigned = [TopicPartition(topic, number) for topic, number in partitions]
        self.kafka.assign(assigned)
        for partition in assigned:
            self.kafka.seek(partition, 0)
        return self

    def records(self):
        for partition, records in self.kafka.poll(100).items():
            for record in records:
                yield partition.topic, partition.partition, record.offset, record.value


def produce(client, arguments, is_over) -> None:
    chance = random.Random(arguments.first_value)
    value, owed = arguments.first_value, 0.0
    while not is_over.is_set():
        time.sleep(TICK)
        owed += arguments.rate * TICK
        place = chance.randrange(len(arguments.partitions))
        while owed >= 1:
            owed -= 1
            send(client, arguments, place, value)
            value += 1
        client.tick()
        sys.stdout.flush()
    client.finish()


def send(client, arguments, place: int, value: int) -> None:
    topic, partition = arguments.partitions[place]

    def done(offset) -> None:
        if offset is None or offset < 0:
            say("U", now(), value)
        else:
            say("A", now(), place, value, offset)

    data = f"{value}:".ljust(arguments.record_bytes, "x").encode()
    say("S", now(), place, value)
    client.send(topic, partition, str(value % KEYS).encode(), data, done)


def consume(client, arguments, is_over) -> None:
    places = {partition: place for place, partition in enumerate(arguments.partitions)}
    positions = collections.Counter()
    while not is_over.is_set():
        polled = collections.defaultdict(list)
        for topic, partition, offset, data in client.records():
            polled[places[topic, partition]].append((offset, value_of(data)))
        for place, records in polled.items():
            say("R", now(), place, positions[place], *(f"{offset}:{value}" for offset, value in records))
            positions[place] = records[-1][0] + 1
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=["produce", "consume"])
    parser.add_argument("--library", choices=["librdkafka", "kafka-python"], required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--partitions", required=True, help="TOPIC/NUMBER, separated by commas")
    parser.add_argument("--first-value", type=int, required=True)
    parser.add_argument("--record-bytes", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True, help="records a second")
    arguments = parser.parse_args()
    names = [name.rsplit("/", 1) for name in arguments.partitions.split(",")]
    arguments.partitions = [(topic, int(number)) for topic, number in names]

    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    client = {"librdkafka": Librdkafka, "kafka-python": KafkaPython}[arguments.library](arguments.bootstrap)
    if arguments.role == "produce":
        produce(client.producer(arguments), arguments, is_over)
    else:
        consume(client.consumer(arguments.partitions), arguments, is_over)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
