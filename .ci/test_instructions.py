"""What .ci/instructions.py says of counts, without counting any."""

import unittest

from instructions import compare, read, write


def wrong(baseline, counts):
    return compare(baseline, counts)[1]


class Compare(unittest.TestCase):
    def test_a_tenth_is_tolerated_and_no_more(self):
        self.assertEqual(wrong({"a": 1000}, {"a": 1100}), [])
        self.assertEqual(wrong({"a": 1000}, {"a": 1101}), ["a takes +10.1% of instructions"])

    def test_one_case_is_enough(self):
        self.assertEqual(len(wrong({"a": 10, "b": 10}, {"a": 1, "b": 20})), 1)

    def test_what_is_better_is_said_and_no_fault(self):
        lines, faults = compare({"a": 1000}, {"a": 500})
        self.assertEqual(faults, [])
        self.assertIn("-50.00%  better", lines[0])

    def test_cases_are_the_same(self):
        self.assertEqual(wrong({"gone": 1}, {}), ["gone is not measured"])
        self.assertEqual(wrong({}, {"new": 1}), ["new is not in the baseline"])


class Baseline(unittest.TestCase):
    def test_what_is_written_is_read(self):
        counts = {"one": 18446283, "another": 5}
        self.assertEqual(read(write("x86_64, rustc 1, valgrind-3", counts)), ("x86_64, rustc 1, valgrind-3", counts))


if __name__ == "__main__":
    unittest.main()
