"""The installed command `muse`, for tests of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

import pyarrow as pa
import pyarrow.parquet as pq

MUSE = Path(sys.executable).with_name("muse")
SENTENCES = [f'Book {number}: über, книга, 本, "quoted"' for number in range(520)]
CHUNK = 512


class Muse:
    """The command, with its own state directory and working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.environment = {**os.environ, "XDG_STATE_HOME": str(self.state), "PYTHONUTF8": "1"}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([MUSE, *arguments], cwd=self.folder, env=self.environment, text=True, **options)

    def __call__(self, *arguments: str, stdin: Optional[str] = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MUSE, *arguments], cwd=self.folder, env=self.environment, input=stdin or "", capture_output=True, text=True
        )

    def run(self, *arguments: str, stdin: Optional[str] = None) -> str:
        ran = self(*arguments, stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def fails(self, *arguments: str, stdin: Optional[str] = None, status: int = 1) -> str:
        """Returns the error message, which must be one line."""
        ran = self(*arguments, stdin=stdin)
        assert ran.returncode == status, ran.stderr
        assert ran.stderr.startswith("muse: error: ") and ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr

    def login(self, url: str) -> Muse:
        self.run("login", url, "--user", "admin", stdin="admin\n")
        return self

    def saved_login(self) -> Path:
        return self.state / "muse/login.json"

    def with_login(self, login: dict[str, Any], url: str) -> Muse:
        """Saves a login as one to `url`, as `muse login` does, which takes longer."""
        self.saved_login().parent.mkdir(parents=True)
        self.saved_login().write_text(json.dumps({**login, "url": url}), encoding="utf-8")
        return self

    def checkpointed_rows(self, output: str) -> int:
        """Number of sentences that are done, from the checkpoint."""
        try:
            rows: int = json.loads((self.folder / f"{output}.part.json").read_text())["rows"]
            return rows
        except FileNotFoundError:
            return 0

    def wait_for(self, output: str, rows: int) -> None:
        start = time.monotonic()
        while self.checkpointed_rows(output) < rows:
            assert time.monotonic() - start < 60
            time.sleep(0.02)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path != self.state}


def write_text(path: Path, sentences: list[str] = SENTENCES) -> None:
    path.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")


def write_inputs(folder: Path) -> None:
    write_text(folder / "in.txt")
    rows = [{"id": str(number), "words": sentence} for number, sentence in enumerate(SENTENCES)]
    for name, dialect in ("in.csv", "excel"), ("in.tsv", "excel-tab"):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "words"], dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet")


def read_json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
