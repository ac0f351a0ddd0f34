"""`muse embed` and `muse tokenize` never lose a file of the user."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from muse_command import CHUNK, Muse, read_json_lines, write_text
from relay import Relay

from muse_as_service.cli import Failure, spool
from muse_as_service.cli.checkpoint import Identity, write_checkpoint
from muse_as_service.cli.files import publish
from muse_as_service.cli.inputs import Row
from muse_as_service.cli.outputs import Target
from muse_as_service.cli.part_file import PartFile
from muse_as_service.cli.spool import Spool

IDENTITY = Identity({"command": "test"}, None, "http://localhost:5000")


def open_spool(path: Path, restart: bool = False, *streams: str) -> Spool:
    return Spool(path, PartFile(path), IDENTITY, b"", streams, restart)


@pytest.mark.parametrize(
    "name", ["out.npy.part", "out.npy.part.json", "out.npy.part.json.new", "out.npy.part.new", "out.npy.meta.json.part"]
)
@pytest.mark.parametrize("option", [[], ["--restart"], ["--overwrite"]])
def test_part_of_another_program_is_refused(muse_on_stack: Muse, name: str, option: list[str]) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"])
    (muse_on_stack.folder / name).write_bytes(b"precious")
    error = muse_on_stack.fails("embed", "in.txt", "out.npy", *option)
    assert name in error and "rename or remove it" in error
    assert muse_on_stack.files() == {"in.txt", name}
    assert (muse_on_stack.folder / name).read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device", "link to nothing"])
@pytest.mark.parametrize("name", ["out.npy.part", "out.npy.part.json", "out.npy.skipped.jsonl.part"])
@pytest.mark.parametrize("restart", [False, True])
def test_part_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str, name: str, restart: bool) -> None:
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null" if kind == "link to a device" else "nothing")
    before = path.lstat()
    with pytest.raises(Failure, match=f"{name} is not a regular file: rename or remove it"):
        open_spool(tmp_path / "out.npy", restart)
    assert list(tmp_path.iterdir()) == [path] and os.path.samestat(path.lstat(), before)


def test_empty_file_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.npy.rows.jsonl.part").touch()
    with pytest.raises(Failure, match=r"out\.npy\.rows\.jsonl\.part exists and is not of an interrupted 'muse'"):
        open_spool(tmp_path / "out.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy.rows.jsonl.part"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none/out.npy", r"cannot write none/out\.npy: there is no folder none$"),
        ("in.txt/out.npy", r"there is no folder in\.txt$"),
        ("x" * 252 + ".npy", "its name, with the suffixes of the files beside it, is too long: choose a shorter one$"),
        ("x" * 242 + ".npy", "its name, with the suffixes of the files beside it, is too long: choose a shorter one$"),
        ("folder.npy", r"folder\.npy is not a regular file"),
        ("out.npy", r"out\.npy\.skipped\.jsonl is not a regular file"),
    ],
    ids=["folder", "file", "long", "longer with suffix", "output", "beside"],
)
def test_output_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").touch()
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "out.npy.skipped.jsonl")
    with pytest.raises(Failure, match=text):
        Target.of(name, None, "embedding", overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["out.npy.meta.json", "out.npy.rows.jsonl", "out.npy.skipped.jsonl"])
def test_existing_file_beside_the_output_is_refused(muse_on_stack: Muse, name: str) -> None:
    (muse_on_stack.folder / "in.jsonl").write_text('{"sentence": "a", "id": 1}\n')
    (muse_on_stack.folder / name).write_bytes(b"precious")
    command = ["embed", "in.jsonl", "out.npy", "--keep", "id", "--on-error", "skip"]
    assert f"{name} exists already" in muse_on_stack.fails(*command)
    assert muse_on_stack.files() == {"in.jsonl", name}
    muse_on_stack.run(*command, "--overwrite")
    assert muse_on_stack.files() == {"in.jsonl", "out.npy", "out.npy.meta.json", "out.npy.rows.jsonl"}


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "standard input", "one of several"])
def test_input_that_is_also_the_output_is_refused(muse_on_stack: Muse, how: str) -> None:
    folder = muse_on_stack.folder
    (folder / "data.jsonl").write_text('"a"\n')
    output = "data.jsonl"
    if how == "symlink":
        (folder / "link.jsonl").symlink_to("data.jsonl")
        output = "link.jsonl"
    if how == "hard link":
        os.link(folder / "data.jsonl", folder / "link.jsonl")
        output = "link.jsonl"
    if how == "standard input":
        with (folder / "data.jsonl").open() as file:
            process = muse_on_stack.start("tokenize", "-", "data.jsonl", "--format", "jsonl", "--overwrite", stdin=file)
            _, error = process.communicate(timeout=30)
        assert process.returncode == 1
    else:
        (folder / "other.jsonl").write_text('"b"\n')
        inputs = ["data.jsonl"] if how != "one of several" else ["other.jsonl", "data.jsonl"]
        error = muse_on_stack.fails("tokenize", *inputs, output, "--overwrite")
    assert f"{output} is also an input" in error
    assert (folder / "data.jsonl").read_text() == '"a"\n'


def test_standard_output_that_is_also_the_input_is_refused(muse_on_stack: Muse) -> None:
    with (muse_on_stack.folder / "data.jsonl").open("a+") as file:
        file.write('"a"\n')
        file.flush()
        process = muse_on_stack.start("tokenize", "data.jsonl", "-", stdout=file)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1 and "standard output is also an input (data.jsonl)" in error


def test_output_that_appears_during_the_run_is_not_replaced(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", ["a"] * 2 * CHUNK)
    relay.block_after = CHUNK
    process = muse_on_relay.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1")
    muse_on_relay.wait_for("out.jsonl", CHUNK)
    (muse_on_relay.folder / "out.jsonl").write_bytes(b"precious")
    relay.release()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1 and "out.jsonl has appeared while the command ran: move it" in error
    assert "1,024 sentences are done and saved" in error
    assert (muse_on_relay.folder / "out.jsonl").read_bytes() == b"precious"
    relay.sentences = 0
    others = [muse_on_relay.folder / f"out.jsonl.{name}" for name in ("rows.jsonl", "skipped.jsonl")]
    for other in others:
        other.write_bytes(b"precious")
    (muse_on_relay.folder / "out.jsonl").rename(muse_on_relay.folder / "other.jsonl")
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 0 and all(other.read_bytes() == b"precious" for other in others)
    assert len(read_json_lines(muse_on_relay.folder / "out.jsonl")) == 2 * CHUNK


def test_publish_without_hard_links_does_not_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refused)
    part, final = tmp_path / "part", tmp_path / "final"
    part.write_bytes(b"new")
    final.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        publish(part, final, overwrite=False)
    assert final.read_bytes() == b"precious"
    final.unlink()
    publish(part, final, overwrite=False)
    assert final.read_bytes() == b"new" and not part.exists()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_file_system_without_locks_is_not_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    one = open_spool(tmp_path / "out")
    assert "has no locks" in capsys.readouterr().err
    one.append([Row("a", 1, None)], {"": b"a"}, 1, 0)
    one.save()
    one.close()
    assert open_spool(tmp_path / "out").position.rows == 1


def test_failed_lock_leaves_no_empty_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", failing)
        with pytest.raises(Failure, match=r"cannot lock .*out\.part: Input/output error"):
            open_spool(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(BlockingIOError(errno.EAGAIN, "")))
        (tmp_path / "out.part").touch()
        with pytest.raises(Failure, match="in use by another 'muse'"):
            open_spool(tmp_path / "out")


def test_empty_part_of_a_killed_command_is_taken_over(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"])
    (muse_on_stack.folder / "out.npy.part").touch()
    (muse_on_stack.folder / "out.npy.part.json.new").write_text('{"muse_ch')
    muse_on_stack.run("embed", "in.txt", "out.npy")
    assert muse_on_stack.files() == {"in.txt", "out.npy", "out.npy.meta.json"}


def test_spool_of_the_next_command_is_not_removed(tmp_path: Path) -> None:
    """The next command begins when the first one has renamed its file, but not removed its checkpoint."""
    first = open_spool(tmp_path / "out")
    first.append([Row("a", 1, None)], {"": b"first"}, 1, 0)
    first.save(publishing=[])
    publish(first.path, tmp_path / "out", overwrite=True)
    second = open_spool(tmp_path / "out")
    second.append([Row("b", 1, None)], {"": b"second"}, 1, 0)
    second.save()
    first.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.part", "out.part.json"]
    with pytest.raises(Failure, match="in use by another 'muse'"):
        PartFile(tmp_path / "out")
    second.close()
    assert open_spool(tmp_path / "out").position.rows == 1
    assert (tmp_path / "out").read_bytes() == b"first" and (tmp_path / "out.part").read_bytes() == b"second"


def test_command_in_use_until_its_spool_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_spool(tmp_path / "out")
    first.append([Row("a", 1, None)], {"": b"first"}, 1, 0)
    first.save(publishing=[])
    publish(first.path, tmp_path / "out", overwrite=True)
    unlink = Path.unlink

    def while_another_begins(path: Path, missing_ok: bool = False) -> None:
        with pytest.raises(Failure, match="in use by another 'muse'"):
            open_spool(tmp_path / "out")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", while_another_begins)
    first.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("renames", range(4))
@pytest.mark.parametrize("option", [[], ["--overwrite"], ["--restart"]])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_command_stopped_while_it_renames_is_resumed(
    muse_on_stack: Muse, renames: int, option: list[str], how: signal.Signals
) -> None:
    """Sidecars are renamed before the output."""
    folder = muse_on_stack.folder
    (folder / "in.jsonl").write_text('{"sentence": "a", "id": 1}\n{\n')
    command = ["embed", "in.jsonl", "out.npy", "--keep", "id", "--on-error", "skip", *option]
    program = (
        "import os, sys; from muse_as_service.cli import main; from muse_as_service.cli.outputs import base\n"
        "publish, left, how = base.publish, int(sys.argv.pop(1)), int(sys.argv.pop(1))\n"
        "def killed(part, final, *, overwrite):\n"
        "    global left\n"
        "    if left == 0: os.kill(os.getpid(), how)\n"
        "    left -= 1\n"
        "    publish(part, final, overwrite=overwrite)\n"
        "base.publish = killed; main.run()\n"
    )
    killed: Any = subprocess.run(
        [sys.executable, "-c", program, str(renames), str(int(how)), *command],
        cwd=folder,
        env=muse_on_stack.environment,
    )
    assert killed.returncode == (130 if how == signal.SIGINT else -how) and not (folder / "out.npy").exists()
    ran = muse_on_stack(*command)
    assert ran.returncode == 3, ran.stderr
    names = {"out.npy", "out.npy.meta.json", "out.npy.rows.jsonl", "out.npy.skipped.jsonl"}
    assert muse_on_stack.files() == {"in.jsonl", *names}
    assert read_json_lines(folder / "out.npy.rows.jsonl") == [{"id": 1}]
    assert len(read_json_lines(folder / "out.npy.skipped.jsonl")) == 1


def test_interrupted_append_leaves_the_old_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption before, during and after the write, and before and after the checkpoint."""
    write, replace = os.write, Path.replace

    def no_write(*_: object) -> int:
        raise KeyboardInterrupt

    def half_write(file: int, content: bytes) -> int:
        write(file, content[:1])
        raise KeyboardInterrupt

    def no_replace(*_: object) -> Path:
        raise KeyboardInterrupt

    def late_replace(path: Path, target: Path) -> Path:
        replace(path, target)
        raise KeyboardInterrupt

    steps = [(os, "write", no_write, 1), (os, "write", half_write, 1)]
    steps += [(Path, "replace", no_replace, 1), (Path, "replace", late_replace, 2)]  # type: ignore[list-item]
    for number, (owner, name, interruption, rows) in enumerate(steps):
        path = tmp_path / f"{number}"
        one = open_spool(path)
        one.append([Row("aa", 1, None)], {"": b"aa"}, 1, 0)
        one.save()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(owner, name, interruption)
            one.append([Row("bb", 2, None)], {"": b"bb"}, 1, 0)
            one.save()
        one.close()
        two = open_spool(path)
        assert two.position.rows == two.saved.rows == rows, name
        assert two.part("").read_bytes() == b"aabb"[: 2 * rows]
        two.skip([Row("aa", 1, None), Row("bb", 2, None)][:rows], "in")
        two.close()


def test_checkpoints_take_at_most_a_twentieth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    saves: list[float] = []

    def slow_sync(_: int) -> None:
        now[0] += 2.0

    def recorded(*arguments: Any, **options: Any) -> None:
        saves.append(now[0])
        write_checkpoint(*arguments, **options)

    monkeypatch.setattr(os, "fsync", slow_sync)
    monkeypatch.setattr(spool, "write_checkpoint", recorded)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one = open_spool(tmp_path / "out")
    for number in range(200):
        one.append([Row(f"{number}", number, None)], {"": b"x"}, 1, 0)
        if one.due_in() == 0:
            one.save()
        now[0] += 1.0
    # The first one precedes the first results. A checkpoint takes 4 s: of the file and of the data.
    saves = saves[1:]
    assert len(saves) > 1 and all(later - earlier >= 20 * 4 for earlier, later in zip(saves, saves[1:]))
    assert one.due_in() is not None
    one.save()
    assert one.due_in() is None and one.saved.rows == 200
