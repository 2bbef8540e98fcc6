#!/usr/bin/env python3
"""Counts the instructions of the produce path and holds them against the committed counts.

Runs engine/benches/instructions.rs under callgrind and compares each case with
engine/benches/instructions.txt. Fails if one takes over a tenth more, or if the cases are not the
same. With --accept the counts of this run are written there instead, to be committed with the
change that moved them and the reason in its message.

Needs valgrind, and gungraun-runner of the version in Cargo.lock:
    cargo install --locked --debug gungraun-runner --version VERSION
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "engine/benches/instructions.txt"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SUMMARIES = TARGET / "gungraun/highwater-engine/instructions"

# A case may take this much more or less than its baseline before somebody has to look.
TOLERANCE = 0.10

HEADER = """\
# Instructions that the produce path takes (benches/instructions.rs), whole runs of each case.
# Written by `python3 .ci/instructions.py --accept`; more than a tenth above it fails .ci/run.
"""


def first_line(*command):
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[0].strip()


def toolchain():
    libc = " ".join(platform.libc_ver())
    return f"{platform.machine()}, {first_line('rustc', '-V')}, {first_line('valgrind', '--version')}, {libc}"


def is_runner_here(version):
    if not shutil.which("gungraun-runner"):
        return False
    return version in first_line("gungraun-runner", "--version").split()


def locked_version():
    lock = (ROOT / "Cargo.lock").read_text()
    return re.search(r'name = "gungraun"\nversion = "([^"]+)"', lock).group(1)


def count():
    """The instructions of each case, by its name."""
    shutil.rmtree(SUMMARIES, ignore_errors=True)
    command = ["cargo", "bench", "--locked", "--quiet", "-p", "highwater-engine"]
    command += ["--bench", "instructions", "--", "--save-summary=json"]
    # Incremental builds are cut into other units, which are optimized otherwise.
    env = os.environ | {"CARGO_INCREMENTAL": "0"}
    run = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"{run.stdout}\nthe benchmark did not run to its end")
    summaries = (json.loads(path.read_text()) for path in SUMMARIES.rglob("summary.json"))
    return {summary["id"]: instructions(summary) for summary in summaries}


def instructions(summary):
    (callgrind,) = (it for it in summary["profiles"] if it["tool"] == "Callgrind")
    return callgrind["data"]["total"]["metrics"]["Ir"]["values"]["new"]


def read(text):
    """The toolchain of a baseline, and its counts."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    tools = lines[0].removeprefix("toolchain: ")
    return tools, {case: int(number) for case, number in (line.split() for line in lines[1:])}


def write(tools, counts):
    width = max(map(len, counts))
    lines = [f"{case:{width}} {number:>12}\n" for case, number in sorted(counts.items())]
    return f"{HEADER}toolchain: {tools}\n" + "".join(lines)


def compare(baseline, counts):
    """A line for each case, and what is wrong."""
    lines, wrong = [], []
    for case in sorted(baseline | counts):
        before, now = baseline.get(case), counts.get(case)
        if before is None or now is None:
            wrong.append(f"{case} is not {'measured' if now is None else 'in the baseline'}")
            continue
        growth, bound, change = now - before, before * TOLERANCE, now / before - 1
        note = ""
        if growth > bound:
            note = "  REGRESSION"
            wrong.append(f"{case} takes {change:+.1%} of instructions")
        elif growth < -bound:
            note = "  better: accept it, so that it cannot be lost again"
        lines.append(f"{case:30} {before:>12} {now:>12} {change:>+8.2%}{note}")
    return lines, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="write the baseline anew")
    accept = parser.parse_args().accept

    if not shutil.which("valgrind"):
        print("no valgrind here: the instructions of the produce path are not counted")
        sys.exit(1 if accept else 0)
    version = locked_version()
    if not is_runner_here(version):
        sys.exit(f"no gungraun-runner {version} here: cargo install --locked --debug gungraun-runner --version {version}")

    tools, counts = toolchain(), count()
    if accept:
        BASELINE.write_text(write(tools, counts))
        print(BASELINE.read_text(), end="")
        return
    known_tools, baseline = read(BASELINE.read_text())
    if known_tools.split(",")[0] != platform.machine():
        print(f"the baseline is of another processor ({known_tools}): the instructions of the produce path are not compared")
        return
    if known_tools != tools:
        print(f"the baseline is of another toolchain, whose share in a difference is not known:\n  {known_tools}\n  {tools}")
    lines, wrong = compare(baseline, counts)
    print("\n".join([f"{'case':30} {'baseline':>12} {'now':>12} {'change':>8}", *lines]))
    if wrong:
        accept_it = "if that is what the change is worth: python3 .ci/instructions.py --accept"
        sys.exit("\n".join([*wrong, accept_it]))


if __name__ == "__main__":
    main()
