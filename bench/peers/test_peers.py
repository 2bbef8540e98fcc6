"""What needs no peer: arithmetic, tables, configurations, processes. `python3 -m unittest discover`."""

import argparse
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

import kafka_site
import loads
import nats_site
import network
import peers
import processes
from comparison import Comparison
from processes import Failed, Servers, Unavailable
from report import COLUMNS, Results, Spread, medians, ratio_table, table

FOLDER = pathlib.Path("/data")
MB = next(column for column in COLUMNS if column.title == "MB/s")
P50 = next(column for column in COLUMNS if column.title == "p50 ms")
CPU = next(column for column in COLUMNS if column.title == "with client")


def report(mb: float, server: float = 4.0, client: float = 1.0) -> dict:
    return {"bytes_per_second": mb * 1e6, "records_per_second": mb * 1_000,
            "server_cpu_seconds_per_gb": server, "client_cpu_seconds_per_gb": client}


def latency(records_per_second: float, p50_us: int = 1_000) -> dict:
    return {"records_per_second": records_per_second, "p50_us": p50_us, "p99_us": 2_000, "p999_us": 3_000}


class Networks(unittest.TestCase):
    def test_a_row_says_what_is_spoken_and_its_spread(self):
        kind = network.Kind("quic", 9_000, 6_500)
        row = network.show(kind, [report(mb) for mb in (300, 100, 200)])
        self.assertEqual(row.split("  ")[0], "quic, MTU 9000, payloads of 6500")
        self.assertIn("200 [100-300]", row)
        self.assertIn("5.0 [5.0-5.0]", row)
        self.assertNotIn("payloads", network.Kind("tcp", 1_500, 1_452).name)

    def test_each_payload_fits_its_network(self):
        headers = 48
        for kind in network.KINDS:
            self.assertLessEqual(kind.datagram_bytes + headers, kind.mtu)

    def test_a_network_that_cannot_be_made_is_taken_down_again(self):
        done = []

        def run(command):
            done.append([str(word) for word in command])
            if "veth" in command:
                raise Failed("no veth")

        with mock.patch.object(network, "run", run), self.assertRaises(Failed):
            network.Network("n", 1_500)
        made = {words[3] for words in done if words[:3] == ["ip", "netns", "add"]}
        gone = {words[3] for words in done if words[:3] == ["ip", "netns", "delete"]}
        self.assertEqual(made, {"n-switch", "n-0"})
        self.assertEqual(gone, made)


class Arithmetic(unittest.TestCase):
    def setUp(self):
        self.results = Results(rate=20_000)
        for mb in (300, 100, 200):
            self.results.add("ours", "throughput", report(mb))
        for mb in (50, 80):
            self.results.add("theirs", "throughput", report(mb, server=9.0))

    def test_a_spread_is_median_and_ends(self):
        self.assertEqual(Spread.of([3.0, 1.0, 10.0, 2.0, 4.0]), Spread(3.0, 1.0, 10.0))
        self.assertEqual(Spread.of([1.0, 2.0]).median, 1.5)

    def test_a_ratio_is_ours_by_theirs(self):
        self.assertAlmostEqual(self.results.ratio("ours", "theirs", MB), 200 / 65)
        self.assertAlmostEqual(self.results.ratio("ours", "theirs", CPU), 5 / 10)
        self.assertIsNone(self.results.ratio("ours", "absent", MB))

    def test_who_is_absent_is_in_the_table_with_the_reason(self):
        self.results.absent["kafka"] = "no mvn here"
        text = table(self.results, ["ours", "kafka"])
        self.assertIn("kafka: not measured: no mvn here", text)
        self.assertTrue(any(line.startswith("kafka ") for line in text.splitlines()))
        self.assertIn("not measured: no mvn here", medians(self.results, ["kafka"])[0]["notes"])

    def test_a_measurement_that_failed_is_said_beside_those_that_did_not(self):
        self.results.fail("ours", "throughput", "not acknowledged")
        self.assertIn("ours: throughput failed 1 times, the last: not acknowledged", table(self.results, ["ours"]))
        self.assertIn("200 [100-300]", table(self.results, ["ours"]))

    def test_who_does_not_keep_up_is_said(self):
        self.results.add("theirs", "latency", latency(4_000))
        self.results.add("ours", "latency", latency(19_990))
        text = table(self.results, ["ours", "theirs"])
        self.assertIn("theirs: does not keep up with 20,000 records/s: 4,000 in time", text)
        self.assertNotIn("ours: does not", text)
        self.assertIsNone(self.results.ratio("ours", "theirs", P50))
        self.results.add("both", "latency", latency(20_000, p50_us=500))
        self.assertEqual(self.results.ratio("ours", "both", P50), 2)

    def test_ratios_have_a_row_for_each_pair(self):
        rows = ratio_table(self.results, ["ours"], ["theirs", "absent"]).splitlines()
        self.assertEqual(len(rows), 3)
        self.assertIn("3.08", rows[1])
        self.assertNotRegex(rows[2], r"\d")

    def test_medians_are_json(self):
        line = json.loads(json.dumps(medians(self.results, ["ours"])[0]))
        self.assertEqual(line["throughput: MB/s"], {"median": 200.0, "min": 100.0, "max": 300.0})
        self.assertIsNone(line["latency: p50 ms"])


class KafkaConfiguration(unittest.TestCase):
    def test_three_brokers_are_each_a_controller(self):
        all = [kafka_site.properties(node, 20_000, FOLDER) for node in range(3)]
        voters = "0@127.0.0.1:20003,1@127.0.0.1:20004,2@127.0.0.1:20005"
        self.assertEqual({it["controller.quorum.voters"] for it in all}, {voters})
        self.assertEqual(all[1]["listeners"], "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20004")
        self.assertEqual(len({it["log.dirs"] for it in all}), 3)
        self.assertTrue(all[0]["default.replication.factor"] == 3 and all[0]["min.insync.replicas"] == 2)

    def test_flushing_is_as_kafka_has_it_unless_a_topic_says_otherwise(self):
        self.assertFalse([key for key in kafka_site.properties(0, 20_000, FOLDER) if "flush" in key])

    def test_properties_are_lines(self):
        self.assertEqual(kafka_site.properties_text({"a": 1, "b": "c"}), "a=1\nb=c\n")

    def test_a_cluster_id_is_sixteen_bytes(self):
        self.assertRegex(kafka_site.cluster_id(), r"^[A-Za-z0-9_-]{22}$")

    def test_without_maven_it_cannot_be_had_and_says_why(self):
        with mock.patch("shutil.which", return_value=None), self.assertRaisesRegex(Unavailable, "no java here"):
            kafka_site.jars(FOLDER, "4.3.0")


class NatsConfiguration(unittest.TestCase):
    def test_one_server_is_no_cluster(self):
        config = json.loads(nats_site.config(0, 1, 20_000, FOLDER, False))
        self.assertEqual(config["jetstream"], {"store_dir": "/data/server-0"})
        self.assertNotIn("cluster", config)

    def test_three_know_each_other(self):
        config = json.loads(nats_site.config(1, 3, 20_000, FOLDER, True))
        self.assertEqual(config["jetstream"]["sync_interval"], "always")
        self.assertEqual(config["cluster"]["routes"], ["nats://127.0.0.1:20003", "nats://127.0.0.1:20005"])
        self.assertEqual((config["listen"], config["cluster"]["listen"]), ("127.0.0.1:20001", "127.0.0.1:20004"))

    def test_an_answer_is_found_behind_what_else_the_server_says(self):
        said = io.BytesIO(b'INFO {}\r\nPING\r\nMSG _INBOX.highwater.manage 1 8\r\n{"a": 1}\r\n')
        replies = io.BytesIO()
        self.assertEqual(nats_site.answer(io.BufferedReader(said), replies), {"a": 1})
        self.assertEqual(replies.getvalue(), b"PONG\r\n")
        with self.assertRaisesRegex(Failed, "Authorization"):
            nats_site.answer(io.BufferedReader(io.BytesIO(b"-ERR 'Authorization Violation'\r\n")), replies)

    def test_a_refusal_is_an_error(self):
        with self.assertRaisesRegex(Failed, "stream not found"):
            nats_site.checked({"error": {"code": 404, "description": "stream not found"}})


class Loads(unittest.TestCase):
    def test_latency_is_of_one_producer_at_a_rate(self):
        load = loads.Load(1_024, 6, 4, 1.0, 3.0)
        words = [str(word) for word in loads.produce_flags(load)]
        self.assertIn("--producers 4 --batch-bytes 1048576 --linger-ms 5", " ".join(words))
        self.assertNotIn("--rate", words)
        paced = loads.Load(1_024, 6, 4, 1.0, 3.0, rate=20_000)
        self.assertIn("--rate 20000 --producers 1", " ".join(str(word) for word in loads.produce_flags(paced)))

    def test_figures_are_the_last_line(self):
        self.assertEqual(loads.last_line('{"durability":"x"}\n{"records":1}\n'), {"records": 1})
        with self.assertRaises(Failed):
            loads.last_line("")

    def test_a_topic_is_loaded_when_every_broker_knows_it(self):
        site, asked = mock.Mock(bootstrap="a:1,b:2"), []

        def run(words, **_):
            if words[2:4] == ["topic", "describe"]:
                asked.append(words[words.index("--bootstrap") + 1])
                if asked == ["a:1", "b:2"]:
                    raise Failed("topic t does not exist")
            return "{}"

        site.servers.pids = []
        with mock.patch("loads.run", run):
            loads.KafkaDriver("highwater", site, "", {}).prepare("t", loads.Load(1_024, 6, 4, 1.0, 3.0))
        self.assertEqual(asked, ["a:1", "b:2", "b:2"])

    def test_warming_goes_on_while_it_gets_faster(self):
        self.assertEqual(self.slices([50, 100, 150, 200, 250, 251, 252, 253, 254]), 8)
        self.assertEqual(self.slices([50, 100, 90, 90, 150, 90, 90, 90, 90]), 8)
        self.assertEqual(self.slices([100] * 9), loads.WARM_UP_SLICES_MIN)
        self.assertEqual(self.slices([2**slice for slice in range(40)]), loads.WARM_UP_SLICES_MAX)

    def test_a_slice_that_fails_warms_too(self):
        driver, said = mock.Mock(), []
        driver.produce.side_effect = [Failed("not acknowledged"), *({"bytes_per_second": 1e8} for _ in range(40))]
        loads.warm(driver, loads.Load(1_024, 6, 4, 1.0, 3.0), said.append)
        self.assertIn("warm-up 1 failed: not acknowledged", said)
        self.assertEqual(len(said), loads.WARM_UP_SLICES_MIN)

    def slices(self, rates: list[float]) -> int:
        driver, said = mock.Mock(), []
        # Each slice produces twice: as fast as it goes, and at a rate.
        driver.produce.side_effect = [{"bytes_per_second": rate * 1e6} for rate in rates for _ in range(2)]
        loads.warm(driver, loads.Load(1_024, 6, 4, 1.0, 3.0), said.append)
        return len(said)


class Turns(unittest.TestCase):
    """The order of a comparison, and what becomes of failures, with drivers that only say so."""

    def setUp(self):
        self.order = []
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for target, fake in {"peers.highwater": self.highwater, "peers.nats": self.nats, "comparison.say": mock.Mock(),
                             "comparison.run": mock.Mock(), "peers.kafka": self.kafka}.items():
            patch = mock.patch(target, fake)
            patch.start()
            self.addCleanup(patch.stop)
        self.drivers = {name: self.driver(name) for name in peers.PEERS}

    def driver(self, name: str) -> mock.Mock:
        driver = mock.Mock()
        driver.produce.side_effect = lambda topic, load: self.order.append(name) or report(10) | latency(19_990)
        driver.consume.return_value = report(20)
        driver.site.folder = self.folder
        return driver

    @contextlib.contextmanager
    def highwater(self, options):
        yield self.drivers

    @contextlib.contextmanager
    def nats(self, options, name):
        yield self.drivers

    @contextlib.contextmanager
    def kafka(self, options, load):
        raise Unavailable("no mvn here")
        yield

    def compare(self, *names: str, runs: int = 1) -> Comparison:
        options = argparse.Namespace(only=names, runs=runs, rate=20_000, record_bytes=1_024, partitions=6,
                                     producers=4, warm_up=1.0, seconds=3.0, linger_ms=1, files="fresh")
        comparison = Comparison(options)
        comparison.measure()
        return comparison

    def test_runs_are_interleaved_and_each_begins_with_another(self):
        self.compare("highwater tcp", "highwater quic", "nats r1", runs=2)
        once = [name for pair in zip(self.order[::2], self.order[1::2]) for name in set(pair)]
        self.assertEqual(once, ["highwater tcp", "highwater quic", "nats r1", "nats r1", "highwater quic", "highwater tcp"])

    def test_who_cannot_be_had_is_said_and_the_others_are_measured(self):
        results = self.compare("highwater tcp", "kafka", "kafka synced").results
        self.assertEqual(results.absent, {"kafka": "no mvn here", "kafka synced": "no mvn here"})
        self.assertEqual(results.spread("highwater tcp", MB).median, 10.0)

    def test_a_failure_ends_neither_the_turn_nor_the_run(self):
        self.drivers["nats r1"].consume.side_effect = Failed("i/o timeout")
        self.drivers["nats r3"].prepare.side_effect = Failed("no suitable peers")
        comparison = self.compare("nats r1", "nats r3", "highwater tcp")
        self.assertEqual(comparison.results.kept_up("nats r1"), 19_990 / 20_000)
        self.assertEqual(comparison.results.failures[("nats r1", "consume")], ["i/o timeout"])
        self.assertEqual(len(comparison.results.failures[("nats r3", "prepare")]), 2)
        self.assertIsNotNone(comparison.results.spread("highwater tcp", MB))
        self.assertEqual([line["kind"] for line in comparison.lines].count("failure"), 3)

    def test_each_measurement_has_a_topic_that_is_removed(self):
        self.compare("highwater tcp")
        driver = self.drivers["highwater tcp"]
        made = [call.args[0] for call in driver.prepare.call_args_list]
        self.assertEqual(made, [call.args[0] for call in driver.remove.call_args_list])
        self.assertEqual(len(set(made)), 2)


class Processes(unittest.TestCase):
    def test_servers_are_ended_whatever_happens(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(KeyboardInterrupt), Servers() as servers:
                for number in range(2):
                    servers.start(["sleep", "600"], pathlib.Path(folder) / f"{number}.log")
                self.assertGreaterEqual(processes.cpu_seconds(servers.pids), 0)
                raise KeyboardInterrupt
            self.assertTrue(all(server.process.poll() is not None for server in servers.all))
            with self.assertRaisesRegex(Failed, "has ended"):
                processes.cpu_seconds(servers.pids)

    def test_a_server_that_ended_says_what_it_said(self):
        with tempfile.TemporaryDirectory() as folder, Servers() as servers:
            servers.start(["sh", "-c", "echo no such disk; exit 3"], pathlib.Path(folder) / "log")
            with self.assertRaisesRegex(Failed, "ended with 3: no such disk"):
                processes.wait_for("it", lambda: servers.have_printed("ready"))

    def test_a_command_that_fails_says_why(self):
        with self.assertRaisesRegex(Failed, "because"):
            processes.run(["sh", "-c", "echo because >&2; exit 1"])
        with self.assertRaisesRegex(Failed, "is not there"):
            processes.run(["/no/such/program"])
        with self.assertRaisesRegex(Failed, "longer than"):
            processes.run([sys.executable, "-c", "input()"], seconds=0.1, stdin=self.silence())

    def silence(self) -> int:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        return reader

    def test_a_folder_has_what_its_files_take(self):
        with tempfile.TemporaryDirectory() as folder:
            below = pathlib.Path(folder) / "a/b"
            below.mkdir(parents=True)
            self.assertEqual(processes.disk_bytes(pathlib.Path(folder)), 0)
            with (below / "file").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 1 << 20)
            self.assertGreaterEqual(processes.disk_bytes(pathlib.Path(folder)), 1 << 20)

    def test_times_are_found_behind_any_name(self):
        self.assertEqual(processes.ticks("7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 6 7 20 0 1"), 300)

    def test_a_port_that_is_taken_is_not_free(self):
        import socket
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.assertFalse(processes.is_free(taken.getsockname()[1]))


if __name__ == "__main__":
    unittest.main()
