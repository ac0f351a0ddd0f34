"""`muse info`: prints the metadata of outputs of `muse embed` or `muse tokenize`, and compares their models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import OtherModel, metadata
from .text import printable

DESCRIPTION = """\
Prints the metadata of files that 'muse embed' or 'muse tokenize' wrote: model, sources, columns and number of rows.
They are in the metadata of a Parquet file under the key 'muse', and beside other files in FILE.meta.json.

Several files, such as shards, must be of one model, whose vectors may be compared with each other; otherwise the exit
status is 4."""


def add_commands(commands: Any) -> None:
    """Adds `info` to the subcommands of `muse`."""
    info = commands.add_parser(
        "info",
        help="print the metadata of outputs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info.add_argument("files", metavar="FILE", nargs="+", help="an output of 'muse embed' or 'muse tokenize'")
    info.add_argument("--json", action="store_true", help="print a JSON object for each file, on a line of its own")
    info.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> None:
    several = len(options.files) > 1
    found = {name: metadata.read(Path(name)) for name in options.files}
    for number, (name, fields) in enumerate(found.items()):
        named = {"file": name} if several else {}
        if options.json:
            print(json.dumps({**named, **fields}, ensure_ascii=False))
            continue
        if number:
            print()
        for label, value in _lines({**named, **fields}).items():
            print(f"{label:11} {printable(value)}")
    _require_one_model(found)


def _require_one_model(found: dict[str, dict[str, Any]]) -> None:
    """Raises `OtherModel` if the files are of different models."""
    first: dict[str, str] = {}
    for name, fields in found.items():
        first.setdefault(_model_text(fields.get("model")), name)
    if len(first) > 1:
        listed = ", ".join(f"{name} is of {model}" for model, name in first.items())
        raise OtherModel(f"the files are of different models, do not compare their vectors: {printable(listed)}")


def _model_text(model: Any) -> str:
    """What identifies a model: its fingerprint; in the files of an earlier version all that is known."""
    if not isinstance(model, dict):
        return "an unknown model"
    if "fingerprint" in model:
        return str(model["fingerprint"])
    return " ".join([*map(str, model.values()), "without a fingerprint"])


def _lines(fields: dict[str, Any]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in fields.items():
        if name in ("muse_metadata", "bytes"):
            continue
        if name == "model":
            # Whatever identifies the model, in the order in which it was written.
            shown.update({"model" if key == "id" else key: str(item) for key, item in (value or {}).items()})
            shown.setdefault("model", "unknown")
            shown.setdefault("fingerprint", "unknown")
        elif isinstance(value, list):
            shown[name] = ", ".join(map(str, value)) or "-"
        else:
            shown[name] = str(value)
    return shown
