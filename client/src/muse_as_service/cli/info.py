"""`muse info`: prints the metadata of an output of `muse embed` or `muse tokenize`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import metadata
from .text import printable

DESCRIPTION = """\
Prints the metadata of a file that 'muse embed' or 'muse tokenize' wrote: model, sources, columns and number of rows.
They are in the metadata of a Parquet file under the key 'muse', and beside other files in FILE.meta.json."""


def add_command(commands: Any) -> None:
    """Adds `info` to the subcommands of `muse`."""
    info = commands.add_parser("info", help="print the metadata of an output", description=DESCRIPTION)
    info.add_argument("file", metavar="FILE", help="an output of 'muse embed' or 'muse tokenize'")
    info.add_argument("--json", action="store_true", help="print a JSON object")
    info.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> None:
    fields = metadata.read(Path(options.file))
    if options.json:
        print(json.dumps(fields, ensure_ascii=False))
        return
    for name, value in _lines(fields).items():
        print(f"{name:10} {printable(value)}")


def _lines(fields: dict[str, Any]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in fields.items():
        if name in ("muse_metadata", "bytes"):
            continue
        if name == "model":
            # Whatever identifies the model, in the order in which it was written.
            shown.update({"model" if key == "id" else key: str(item) for key, item in (value or {}).items()})
            shown.setdefault("model", "unknown")
        elif isinstance(value, list):
            shown[name] = ", ".join(map(str, value)) or "-"
        else:
            shown[name] = str(value)
    return shown
