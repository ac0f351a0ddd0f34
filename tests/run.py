#!/usr/bin/env python3
"""Builds the Rust tests with the given options of `cargo test`, runs the test programs, and prints a summary: passed and failed tests, and skipped tests with reasons.

Several programs run at a time, because most of them wait often: `cargo test` runs one after the other. Rust tests report
skips, and pytest all results, in the file MUSE_TEST_REPORT (tests/support, tests/python/muse_report.py).
"""

import collections
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "target"
REPORT = TARGET / "test-report.tsv"
# The seconds that each program took: the longest ones start first.
DURATIONS = TARGET / "test-durations.json"
# The same for a clean clone: about what the longest programs take on two cores.
EXPECTED = {
    "client": 240,
    "page": 220,
    "grpc": 95,
    "standalone": 85,
    "replicas": 80,
    "openapi": 75,
    "engines": 70,
    "deploy": 60,
    "postgres": 50,
    "isolation": 45,
    "service": 45,
    "saved_model": 40,
    "sdks": 35,
    "as_a_user": 30,
    "usage": 30,
    "conversion": 25,
    "kernels": 25,
    "golden_kernels": 20,
}
# So many programs run in any case; further ones, up to the second number, start while processors are idle.
AT_LEAST, AT_MOST = 2, 6
# A program starts if this share of the processors' time was idle since the last one started, at least for these seconds.
IDLE_SHARE, IDLE_FOR_S = 0.3, 2
# Tests and modules that use the whole machine: nothing else runs meanwhile.
ALONE = {"isolation": ("cancellation::", "limits::", "idle::idle_calls")}
# Valid names in MUSE_REQUIRE.
REQUIREMENTS = (
    "amx",
    "arm",
    "avx-vnni",
    "avx2",
    "avx512",
    "avx512-bf16",
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

Program = collections.namedtuple("Program", "name path folder arguments", defaults=[()])
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


class Running:
    """A program that runs as `cargo test` runs it, in the folder of its package."""

    def __init__(self, program):
        print(f"… {program.name}", flush=True)
        environment = {
            **os.environ,
            "MUSE_TEST_REPORT": str(REPORT),
            "CARGO_MANIFEST_DIR": str(program.folder),
            # Threads of libtorch that wait do not spin, because other programs need the processors.
            "OMP_WAIT_POLICY": "passive",
        }
        self.program, self.start = program, time.monotonic()
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (`result` closes it)
        self.process = subprocess.Popen(
            [program.path, *program.arguments], cwd=program.folder, env=environment, stdout=self.output, stderr=subprocess.STDOUT
        )

    def has_ended(self):
        return self.process.poll() is not None

    def result(self):
        with self.output:
            self.output.seek(0)
            output = self.output.read().decode(errors="replace")
        return Ran(self.program, self.process.wait(), output, time.monotonic() - self.start)


class Processors:
    """The idle time of the processors, by Linux's /proc/stat."""

    def __init__(self):
        self.observe()

    def observe(self):
        """Begin a new period of observation."""
        self.start, self.before = time.monotonic(), self._times()

    def are_idle(self):
        """Whether they were idle in this period. Begins a new one if it was long enough to decide that."""
        if time.monotonic() < self.start + IDLE_FOR_S:
            return False
        idle, total = (now - before for now, before in zip(self._times(), self.before))
        self.observe()
        return idle > IDLE_SHARE * total

    @staticmethod
    def _times():
        """Idle time and total time of all processors."""
        with open("/proc/stat", encoding="ascii") as file:
            _, user, nice, system, idle, iowait, *interrupts_and_steal = file.readline().split()[:9]
        idle = int(idle) + int(iowait)
        return idle, idle + sum(map(int, (user, nice, system, *interrupts_and_steal)))


def divide(programs):
    """Return the programs that may run at a time, and those that run alone, in the order in which they start."""
    together, alone = [], []
    for program in programs:
        tests = ALONE.get(program.name, ())
        together.append(program._replace(arguments=[word for test in tests for word in ("--skip", test)]))
        if tests:
            alone.append(program._replace(name=f"{program.name}, alone", arguments=tests))
    durations = EXPECTED | read_durations()
    together.sort(key=lambda program: -durations.get(program.name, 0))
    return together, alone


def run_all(together, alone):
    """Yield the results of the programs as they end."""
    stopped = []
    # Ctrl-C ends the programs, which are in the same process group; no further one starts.
    signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    yield from run_some(together, stopped, AT_MOST)
    yield from run_some(alone, stopped, 1)
    if stopped:
        print("\nstopped")
        sys.exit(130)


def run_some(programs, stopped, at_most):
    """Yield the results of these programs, of which at most `at_most` run at a time."""
    waiting, running, processors = collections.deque(programs), [], Processors()
    while running or (waiting and not stopped):
        if waiting and not stopped and len(running) < at_most and (len(running) < AT_LEAST or processors.are_idle()):
            running.append(Running(waiting.popleft()))
            processors.observe()
        for ended in [program for program in running if program.has_ended()]:
            running.remove(ended)
            yield ended.result()
        time.sleep(0.05)


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
    together, alone = divide(build(sys.argv[1:]))
    REPORT.unlink(missing_ok=True)
    counts, names, ended_badly, durations = [0, 0, 0], {"ok": [], "FAILED": []}, [], read_durations()
    for number, ran in enumerate(run_all(together, alone), 1):
        print(f"\n== {ran.program.name}: {ran.seconds:.0f} s ({number} of {len(together) + len(alone)})")
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
