"""The options of `muse embed` and `muse tokenize`."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Optional, Union

from . import outputs
from .fingerprint import fingerprint
from .login import add_credential_options
from .progress import MODES

INPUT_FORMATS = ("text", "csv", "tsv", "jsonl", "parquet")
DESCRIPTION = (
    "Converts the sentences of files to {results}. INPUT is a file, a pattern or a folder: text with a sentence per "
    "line (.txt), CSV or TSV (.csv, .tsv), JSON lines (.jsonl), each also compressed (.gz, .bz2, .zst), or Parquet "
    "(.parquet); - is standard input. OUTPUT is {outputs}; - is JSON lines on standard output. Results have the order "
    "of the input.",
    "The same command resumes interrupted work. Until all sentences are done, the results are in OUTPUT.part.",
    "The credential is the API key in the environment variable MUSE_API_KEY, otherwise the login of 'muse login'.",
)
WIDTH = 100
EXAMPLES = """\
examples:
  muse {command} books.csv books.{extension} --column title
  muse {command} part-*.parquet all.parquet --keep id,lang
  muse {command} crawl.jsonl crawl.jsonl.zst --on-error skip --progress lines
  muse {command} big.txt big-1.parquet --shard 1/4        # on the first of four machines
  printf 'Hello\\n' | muse {command} - -

exit status: 0 done, 1 failed, 2 wrong usage, 3 done but rows were skipped (--on-error skip), 4 the service has another
model than the saved results or than --fingerprint, 130 interrupted"""


class Once(argparse.Action):
    """An option that may be given only once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Union[str, Sequence[Any], None],
        option: Optional[str] = None,
    ) -> None:
        given = vars(namespace).setdefault("given", set())
        if self.dest in given:
            raise argparse.ArgumentError(self, "it is given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def add_options(command: argparse.ArgumentParser, field: str) -> None:
    """Adds everything but the files, which `split_files` takes from the arguments."""
    embeds = field == "embedding"
    written = sorted(set(outputs.FORMATS.values()) - (set() if embeds else {"npy"}))
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    outputs_text = "JSON lines (.jsonl, .jsonl.gz, .jsonl.bz2, .jsonl.zst) or Parquet (.parquet)"
    words = {
        "results": "vectors" if embeds else "tokens",
        "outputs": f"a numpy array (.npy), {outputs_text}" if embeds else outputs_text,
    }
    command.description = "\n\n".join(textwrap.fill(text.format(**words), WIDTH) for text in DESCRIPTION)
    command.epilog = EXAMPLES.format(
        command="embed" if embeds else "tokenize", extension="npy" if embeds else "parquet"
    )
    command.add_argument("input", metavar="INPUT", nargs="+", help="a file to read, or - for standard input")
    command.add_argument("output", metavar="OUTPUT", help="the file to write; the last of the names")
    _add_input_options(command.add_argument_group("input"))
    _add_output_options(command.add_argument_group("output"), written, embeds)
    _add_service_options(command.add_argument_group("service"))


def _add_input_options(group: Any) -> None:
    group.add_argument(
        "--column",
        action=Once,
        metavar="NAME",
        help="column or field with the sentences (sentence); with --no-header a number from 1",
    )
    group.add_argument(
        "--keep", action=Once, default="", metavar="NAMES", help="columns to copy to OUTPUT, such as id,lang; * for all"
    )
    group.add_argument(
        "--format", action=Once, choices=INPUT_FORMATS, help="format of INPUT, if its extension does not determine it"
    )
    group.add_argument("--encoding", action=Once, metavar="NAME", help="encoding of text, CSV and JSON (utf-8)")
    group.add_argument(
        "--delimiter", action=Once, metavar="CHARACTER", help="delimiter of CSV, such as ';' (a comma; .tsv: a tab)"
    )
    group.add_argument("--no-header", action="store_true", help="the first line of CSV is a row, not the header")
    group.add_argument("--no-quoting", action="store_true", help="quotation marks in CSV are ordinary characters")
    group.add_argument(
        "--multiline-cells", action="store_true", help="quoted cells of CSV may have several lines; default: an error"
    )
    group.add_argument(
        "--on-error",
        action=Once,
        choices=("fail", "skip"),
        default="fail",
        help="what to do with a row that has no valid sentence: end (%(default)s), or leave it out and list it in "
        "OUTPUT.skipped.jsonl",
    )
    group.add_argument(
        "--shard",
        action=Once,
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="only every N-th row, from the I-th one",
    )


def _add_output_options(group: Any, written: list[str], embeds: bool) -> None:
    group.add_argument(
        "--output-format",
        action=Once,
        choices=written,
        help="format of OUTPUT, if its extension does not determine it; .gz, .bz2 and .zst compress JSON lines",
    )
    if embeds:
        group.add_argument(
            "--dtype", action=Once, choices=("float32", "float16"), default="float32", help="type of the vectors "
            "(%(default)s)"
        )  # fmt: skip
        group.add_argument("--dedup", action="store_true", help="compute the vector of a repeated sentence only once")
    group.add_argument("--overwrite", action="store_true", help="replace an existing OUTPUT and the files beside it")
    group.add_argument("--restart", action="store_true", help="start over and discard saved results")
    group.add_argument(
        "--progress",
        action=Once,
        choices=MODES,
        default="auto",
        help="a bar, a line every 10 s (for logs), or none; auto: a bar on a terminal, else none",
    )
    group.add_argument(
        "--json", action="store_true", help="print the result, or the error, as a JSON object on standard output"
    )


def _add_service_options(group: Any) -> None:
    group.add_argument(
        "--in-flight",
        action=Once,
        type=_count,
        default=4,
        metavar="N",
        help="number of concurrent requests (%(default)s)",
    )
    group.add_argument(
        "--timeout",
        action=Once,
        type=_timeout,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for a response (%(default)g); then the request is sent again in halves",
    )
    group.add_argument(
        "--retry-for",
        action=Once,
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to retry if the service is unavailable or overloaded (%(default)g)",
    )
    group.add_argument(
        "--fingerprint",
        action=Once,
        type=fingerprint,
        metavar="ID",
        help="the fingerprint that the model of the service must have, as 'muse info' prints it; default: that of the "
        "model at the start, or of the saved results",
    )
    add_credential_options(group)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 64")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds


def _timeout(text: str) -> float:
    seconds = _seconds(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard I/N with 1 <= I <= N, such as 1/4")
    return number, count
