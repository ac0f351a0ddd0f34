"""Runs the examples of the README."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_print_what_their_comments_show(url: str, code: str) -> None:
    address = httpx.URL(url)
    code = code.replace("localhost:5000", f"{address.host}:{address.port}")
    code = code.replace('ip="localhost", port=5000', f'ip="{address.host}", port={address.port}')
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    shown = [comment for comment in re.findall(r"print\(.*\)  # (.*)", code) if not comment.startswith("the cosine")]
    assert shown
    for comment in shown:
        assert comment in printed.getvalue()


def test_shell_commands_succeed(url: str, tmp_path: Path) -> None:
    (script,) = [block for block in blocks("sh") if "muse login" in block]
    script = re.sub(r"#.*", "", script).replace("http://localhost:5000", url)
    script = script.replace("--user admin", "--user admin <<< admin")
    (tmp_path / "books.csv").write_text("title,pages\nFaust,500\nDon Quijote,900\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_STATE_HOME": str(tmp_path / "state")}
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=True)
    assert np.load(tmp_path / "books.npy").shape == (2, 512)
    assert "▁Don" in (tmp_path / "books.jsonl").read_text(encoding="utf-8")
