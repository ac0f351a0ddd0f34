#!/usr/bin/env python3
"""Runs a command such as `cargo test`, shows its output, and prints a summary: passed and failed tests, and skipped tests with reasons.

The exit status is that of the command. Rust tests report skips, and pytest all results, in the file MUSE_TEST_REPORT
(tests/support, tests/python/muse_report.py).
"""

import collections
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

REPORT = Path(__file__).resolve().parent.parent / "target/test-report.tsv"
# Valid names in MUSE_REQUIRE.
REQUIREMENTS = (
    "amx",
    "avx2",
    "avx512",
    "chromium",
    "memory-cgroup",
    "no-nvidia-driver",
    "postgres",
    "prometheus",
    "root",
    "systemd",
)
RESULT = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
TEST = re.compile(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED)$")


def run(command):
    """Return the exit status of the command, the numbers of passed, failed and ignored Rust tests, and the names of passed and failed ones."""
    counts, names = [0, 0, 0], {"ok": [], "FAILED": []}
    environment = {**os.environ, "MUSE_TEST_REPORT": str(REPORT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    for raw in process.stdout:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        line = raw.decode(errors="replace").rstrip()
        if result := RESULT.match(line):
            counts = [count + int(more) for count, more in zip(counts, result.groups())]
        elif test := TEST.match(line):
            names[test[2]].append(test[1])
    return process.wait(), counts, names


def reported():
    """Return the reported outcome and reason of each test; the last report of a test counts."""
    lines = REPORT.read_text(encoding="utf-8").splitlines() if REPORT.exists() else []
    results = (line.split("\t", 2) for line in lines)
    return {test: (outcome, reason) for outcome, test, reason in results}


def main():
    unknown = [name for name in os.environ.get("MUSE_REQUIRE", "").split() if name not in REQUIREMENTS]
    if unknown:
        sys.exit(f"error: MUSE_REQUIRE contains {', '.join(unknown)}; valid names are {', '.join(REQUIREMENTS)}")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.unlink(missing_ok=True)
    # Ctrl-C ends the command; this process waits for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    status, (passed, failed, ignored), names = run(sys.argv[1:])

    results = reported()
    pytest = collections.Counter(outcome for test, (outcome, _) in results.items() if ".py::" in test)
    skipped = [(test, reason) for test, (outcome, reason) in results.items() if outcome == "skipped"]
    # The test runner counts a skipped Rust test as passed.
    skipped_rust = sum(test.rpartition(" ")[2] in names["ok"] for test, _ in skipped if ".py::" not in test)
    failures = names["FAILED"] + [test for test, (outcome, _) in results.items() if outcome == "failed"]

    print("\n== summary")
    print(f"Rust: {passed - skipped_rust} passed, {failed} failed")
    if pytest:
        print(f"pytest: {pytest['passed']} passed, {pytest['failed']} failed")
    for test in failures:
        print(f"failed: {test}")
    for test, reason in skipped:
        print(f"skipped: {test}: {reason}")
    if ignored:
        print(f"ignored: {ignored} tests")
    if status and not failures:
        print(f"failed: {' '.join(sys.argv[1:])} ended with status {status}")
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
