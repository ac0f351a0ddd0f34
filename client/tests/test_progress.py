"""Progress and standard error of `muse embed` and `muse tokenize`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from muse_command import CHUNK, MUSE, Muse, read_json_lines, write_text
from relay import Relay

SENTENCES = [f"{number}" for number in range(3 * CHUNK)]


def on_terminal(muse: Muse, *arguments: str) -> tuple[int, str]:
    """Runs the command with standard error on a terminal. Returns its exit status and what the terminal shows."""
    ours, theirs = pty.openpty()
    process = muse.start(*arguments, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65_536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    return process.wait(30), shown.decode()


def test_progress_is_a_bar_on_a_terminal(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", SENTENCES)
    muse_on_relay.environment["TERM"] = "xterm"
    relay.seconds_per_sentence = 0.001
    status, shown = on_terminal(muse_on_relay, "tokenize", "in.txt", "out.jsonl", "--in-flight", "1")
    assert status == 0 and re.search(r"\r *\d+%\|.*\| [\d,]+ sentences \[\d\d:\d\d<.*sentences/s\]", shown), shown
    assert re.search(r"1,536 sentences in \d+:\d\d:\d\d \([\d,]+/s\): out\.jsonl\r\n$", shown)
    write_text(muse_on_relay.folder / "one.txt", ["a"])
    status, shown = on_terminal(muse_on_relay, "tokenize", "one.txt", "one.jsonl")
    assert re.search(r"\b1 sentence in ", shown)


def test_dumb_terminal_gets_lines(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", SENTENCES)
    muse_on_stack.environment["TERM"] = "dumb"
    status, shown = on_terminal(muse_on_stack, "tokenize", "in.txt", "out.jsonl")
    assert status == 0 and re.fullmatch(r"1,536 sentences in [^\r\x1b]*: out\.jsonl\r\n", shown), shown


def test_command_is_silent_without_a_terminal(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", SENTENCES)
    ran = muse_on_stack("tokenize", "in.txt", "out.jsonl")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert on_terminal(muse_on_stack, "tokenize", "in.txt", "1.jsonl", "--progress", "none") == (0, "")


def test_progress_lines_are_for_logs(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", SENTENCES)
    relay.block_after = CHUNK
    process = muse_on_relay.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1", "--progress", "lines")
    muse_on_relay.wait_for("out.jsonl", CHUNK)
    time.sleep(10.5)
    relay.release()
    _, stderr = process.communicate(timeout=30)
    assert re.search(r"^ *\d+% [\d,]+ sentences, [\d,]+/s, \d+:\d\d:\d\d left$", stderr, re.MULTILINE), stderr
    assert "\x1b" not in stderr and "\r" not in stderr and "1,536 sentences in " in stderr


def test_summary_contains_the_rows_of_an_earlier_command(muse_on_stack: Muse) -> None:
    (muse_on_stack.folder / "in.txt").write_bytes(b"a\nb\n\xff\n")
    muse_on_stack.fails("tokenize", "in.txt", "out.jsonl")
    write_text(muse_on_stack.folder / "in.txt", ["a", "b", "c"])
    ran = muse_on_stack("tokenize", "in.txt", "out.jsonl", "--progress", "lines")
    assert ran.stderr.startswith("3 sentences, 2 of them earlier, in 0:00:0"), ran.stderr


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "closed pipe", "terminal gone"])
@pytest.mark.parametrize("mode", ["bar", "lines"])
def test_unwritable_standard_error_does_not_end_a_job(muse_on_stack: Muse, how: str, mode: str) -> None:
    write_text(muse_on_stack.folder / "in.txt", SENTENCES)
    command = [str(MUSE), "tokenize", "in.txt", "out.jsonl", "--progress", mode]
    options: dict[str, Any] = {"cwd": muse_on_stack.folder, "env": muse_on_stack.environment}
    if how == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
        status = subprocess.run(command, stderr=writing, **options).returncode
        os.close(writing)
    elif how == "terminal gone":
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stderr=theirs, **options)
        os.close(theirs)
        os.close(ours)
        status = process.wait(60)
    else:
        status = subprocess.run(["bash", "-c", f'exec "$@" {how}', "-", *command], **options).returncode
    assert status == 0
    rows = read_json_lines(muse_on_stack.folder / "out.jsonl")
    assert [row["sentence"] for row in rows] == SENTENCES


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-"])
def test_unwritable_standard_error_does_not_change_the_status(muse_on_stack: Muse, how: str) -> None:
    options: dict[str, Any] = {"cwd": muse_on_stack.folder, "env": muse_on_stack.environment}
    for status, arguments in (1, ["embed", "none.txt", "out.npy"]), (1, ["info", "none.npy"]):
        command = ["bash", "-c", f'exec "$@" {how}', "-", str(MUSE), *arguments]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
        # print(file=None) would write to standard output.
        assert (ran.returncode, ran.stdout) == (status, "")


def test_closed_standard_output_is_reported(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"])
    options: dict[str, Any] = {"cwd": muse_on_stack.folder, "env": muse_on_stack.environment}
    for redirection, problem in (
        (">&-", "cannot write standard output: it is closed"),
        (">/dev/full", "cannot write standard output: No space left on device"),
    ):
        command = ["bash", "-c", f'exec "$@" {redirection}', "-", str(MUSE), "tokenize", "in.txt", "-"]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)
        assert (ran.returncode, ran.stderr) == (1, f"muse: error: {problem}\n")
    command = ["bash", "-c", 'exec "$@" >/dev/full', "-", str(MUSE), "tokenize", "in.txt", "out.jsonl", "--json"]
    ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "No space left on device" in ran.stderr
    assert (muse_on_stack.folder / "out.jsonl").exists()


def test_hang_up_saves_the_results(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", SENTENCES)
    relay.block_after = 2 * CHUNK
    # The signal is ignored if these tests run under nohup.
    process = muse_on_relay.start(
        "tokenize", "in.txt", "out.jsonl", "--in-flight", "1", "--json",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    muse_on_relay.wait_for("out.jsonl", CHUNK)
    process.send_signal(signal.SIGHUP)
    out, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "done and saved" in stderr
    assert json.loads(out)["exit_status"] == 130
    assert muse_on_relay.checkpointed_rows("out.jsonl") >= CHUNK


def test_ignored_hang_up_does_not_end_a_job(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", SENTENCES)
    relay.block_after = CHUNK
    process = subprocess.Popen(
        ["nohup", MUSE, "tokenize", "in.txt", "out.jsonl", "--in-flight", "1"],
        cwd=muse_on_relay.folder, env=muse_on_relay.environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    muse_on_relay.wait_for("out.jsonl", CHUNK)
    process.send_signal(signal.SIGHUP)
    relay.release()
    assert process.wait(30) == 0
    path: Path = muse_on_relay.folder / "out.jsonl"
    assert len(read_json_lines(path)) == 3 * CHUNK
