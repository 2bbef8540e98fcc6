#!/usr/bin/env python3
"""librdkafka's mock cluster, for tests of clients that did not grow up with our broker.

Prints the bootstrap addresses on one line and stays up until its standard input closes.
Needs confluent-kafka (PyPI), which carries librdkafka.

usage: mock_cluster.py [BROKERS]
"""

import sys

from confluent_kafka import Producer


def main() -> None:
    brokers = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    # The mock cluster lives inside of this producer.
    holder = Producer({"test.mock.num.brokers": brokers, "bootstrap.servers": "ignored"})
    metadata = holder.list_topics(timeout=10)
    addresses = [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()]
    print(",".join(addresses), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
