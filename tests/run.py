#!/usr/bin/env python3
"""Builds the Rust tests with the given options of `cargo test`, runs the test programs, and prints a summary: passed and failed tests, and skipped tests with reasons.

Two programs run at a time, because most of them wait often: `cargo test` runs one after the other. Rust tests report
skips, and pytest all results, in the file MUSE_TEST_REPORT (tests/support, tests/python/muse_report.py).
"""

import collections
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "target"
REPORT = TARGET / "test-report.tsv"
# The seconds that each program took: the longest ones start first.
DURATIONS = TARGET / "test-durations.json"
AT_A_TIME = 2
# They measure latencies and memory: nothing else runs meanwhile.
ALONE = ("isolation",)
# Valid names in MUSE_REQUIRE.
REQUIREMENTS = (
    "amx",
    "arm",
    "avx2",
    "avx512",
    "avx512-vnni",
    "chromium",
    "memory-cgroup",
    "no-nvidia-driver",
    "postgres",
    "prometheus",
    "root",
    "systemd",
)
RESULT = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.MULTILINE)
TEST = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED)$", re.MULTILINE)

Program = collections.namedtuple("Program", "name path folder")
Ran = collections.namedtuple("Ran", "program status output seconds")


def build(options):
    """Build the tests and return their programs."""
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    programs = []
    for line in process.stdout:
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            manifest, target = Path(message["manifest_path"]), message["target"]
            is_unit = "test" not in target["kind"]
            name = f"{target['name']} (unit tests)" if is_unit else target["name"]
            programs.append(Program(name, message["executable"], manifest.parent))
    if process.wait():
        sys.exit(process.returncode if process.returncode > 0 else 1)
    return programs


def run(program):
    """Run a program as `cargo test` does, in the folder of its package."""
    print(f"… {program.name}", flush=True)
    environment = {**os.environ, "MUSE_TEST_REPORT": str(REPORT), "CARGO_MANIFEST_DIR": str(program.folder)}
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        status = subprocess.run([program.path], cwd=program.folder, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
        output.seek(0)
        return Ran(program, status, output.read().decode(errors="replace"), time.monotonic() - start)


def run_all(programs):
    """Yield the results of the programs as they end."""
    durations = read_durations()
    programs = sorted(programs, key=lambda program: -durations.get(program.name, float("inf")))
    ended, waiting = queue.Queue(), collections.deque(p for p in programs if p.name not in ALONE)
    stopped = threading.Event()
    # Ctrl-C ends the programs, which are in the same process group; no further one starts.
    signal.signal(signal.SIGINT, lambda *_: stopped.set())

    def work():
        while not stopped.is_set():
            try:
                program = waiting.popleft()
            except IndexError:
                return
            ended.put(run(program))

    threads = [threading.Thread(target=work) for _ in range(AT_A_TIME)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or not ended.empty():
        try:
            yield ended.get(timeout=0.2)
        except queue.Empty:
            continue
    for program in programs:
        if program.name in ALONE and not stopped.is_set():
            yield run(program)
    if stopped.is_set():
        print("\nstopped")
        sys.exit(130)


def read_durations():
    try:
        return json.loads(DURATIONS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def reported():
    """Return the reported outcome and reason of each test; the last report of a test counts."""
    lines = REPORT.read_text(encoding="utf-8").splitlines() if REPORT.exists() else []
    results = (line.split("\t", 2) for line in lines)
    return {test: (outcome, reason) for outcome, test, reason in results}


def summarize(counts, names, ended_badly):
    results = reported()
    pytest = collections.Counter(outcome for test, (outcome, _) in results.items() if ".py::" in test)
    skipped = [(test, reason) for test, (outcome, reason) in results.items() if outcome == "skipped"]
    # The test programs count a skipped Rust test as passed.
    skipped_rust = sum(test.rpartition(" ")[2] in names["ok"] for test, _ in skipped if ".py::" not in test)
    passed, failed, ignored = counts

    print("\n== summary")
    print(f"Rust: {passed - skipped_rust} passed, {failed} failed")
    if pytest:
        print(f"pytest: {pytest['passed']} passed, {pytest['failed']} failed")
    for test in names["FAILED"] + [test for test, (outcome, _) in results.items() if outcome == "failed"]:
        print(f"failed: {test}")
    for test, reason in skipped:
        print(f"skipped: {test}: {reason}")
    if ignored:
        print(f"ignored: {ignored} tests")
    for ran in ended_badly:
        print(f"failed: {ran.program.name}, with status {ran.status}: {ran.program.path}")


def main():
    unknown = [name for name in os.environ.get("MUSE_REQUIRE", "").split() if name not in REQUIREMENTS]
    if unknown:
        sys.exit(f"error: MUSE_REQUIRE contains {', '.join(unknown)}; valid names are {', '.join(REQUIREMENTS)}")
    programs = build(sys.argv[1:])
    REPORT.unlink(missing_ok=True)
    counts, names, ended_badly, durations = [0, 0, 0], {"ok": [], "FAILED": []}, [], read_durations()
    for number, ran in enumerate(run_all(programs), 1):
        print(f"\n== {ran.program.name}: {ran.seconds:.0f} s ({number} of {len(programs)})")
        print(ran.output, end="", flush=True)
        for result in RESULT.findall(ran.output):
            counts = [count + int(more) for count, more in zip(counts, result)]
        for test, outcome in TEST.findall(ran.output):
            names[outcome].append(test)
        if ran.status:
            ended_badly.append(ran)
        durations[ran.program.name] = round(ran.seconds, 1)
    DURATIONS.write_text(json.dumps(durations), encoding="utf-8")
    summarize(counts, names, ended_badly)
    sys.exit(101 if ended_badly else 0)


if __name__ == "__main__":
    main()
