"""`muse embed` and `muse tokenize`."""

from __future__ import annotations

import argparse
import json
from typing import Any, Optional

import numpy as np

from .. import MUSEError, __version__
from .._transfer import DIMENSION
from . import Failure, Stopped, bulk_options, files, inputs, outputs, pipeline
from .checkpoint import Identity
from .counts import count
from .job_login import JobLogin
from .job_service import JobService, Model
from .login import credential
from .outputs import Layout, Sink, Target
from .part_file import PartFile
from .pipeline import Job, Summary
from .sending import Sender
from .standard_streams import print_error

SKIPPED_STATUS = 3


def add_commands(commands: Any) -> None:
    """Adds `embed` and `tokenize` to the subcommands of `muse`."""
    for name, field, results in ("embed", "embedding", "vectors"), ("tokenize", "tokens", "tokens"):
        command = commands.add_parser(name, help=f"convert the sentences of files to {results}")
        bulk_options.add_options(command, field)
        command.set_defaults(run=_run, command=name, field=field, parser=command)


def _run(options: argparse.Namespace) -> int:
    if options.json and options.output == "-":
        options.parser.error("argument --json: standard output contains the results if OUTPUT is -")
    try:
        return _convert(options)
    except (Failure, MUSEError, Stopped) as failure:
        if options.json:
            _print_json({"error": str(failure), "exit_status": _exit_status(failure)})
        raise
    except KeyboardInterrupt:
        if options.json:
            _print_json({"error": "stopped", "exit_status": 130})
        raise


def _convert(options: argparse.Namespace) -> int:
    target = Target.of(options.output, options.output_format, options.field, overwrite=options.overwrite)
    saved, api_key = credential(options)
    source = inputs.open_inputs(options.input, _input_options(options))
    if target.standard:
        files.refuse_input_as_standard_output(source.paths)
    else:
        files.refuse_inputs(target.files(), source.paths)
    # Locked before the first request, which may wait for the service.
    part = None if target.standard else PartFile(target.path)
    try:
        login = JobLogin(saved.url, saved.ca_file)
        output, summary = _process(options, target, source, part, login, api_key)
    finally:
        if part is not None:
            part.close()
    return _report(options, output, summary)


def _process(
    options: argparse.Namespace,
    target: Target,
    source: inputs.Input,
    part: Optional[PartFile],
    login: JobLogin,
    api_key: str,
) -> tuple[Sink, Summary]:
    sender = Sender(options.timeout)
    with login.client(
        grpc=options.grpc,
        dtype=getattr(options, "dtype", np.float32),
        timeout=options.timeout,
        retry_for=options.retry_for,
        on_retry=sender.on_retry,
        api_key=api_key,
        fingerprint=options.fingerprint,
    ) as client:
        service = JobService(client, None if api_key else login, options)
        model = service.open()
        layout = _layout(options, target, source, model)
        identity = Identity(_settings(options, target, layout), service.identity(model), client.url)
        output = outputs.open_output(target, layout, part, identity, restart=options.restart)
        sender.work = client.embed if options.field == "embedding" else client.tokenize
        job = Job(
            source=source,
            output=output,
            sender=sender,
            in_flight=options.in_flight,
            shard=options.shard,
            skips=options.on_error == "skip",
            dedup=layout.dedup,
            progress=options.progress,
            verify=service.verify,
            explain=service.explain,
        )
        return output, pipeline.run(job)


def _input_options(options: argparse.Namespace) -> inputs.Options:
    names = options.keep.split(",") if options.keep else []
    return inputs.Options(
        column=options.column,
        format=options.format,
        encoding=options.encoding,
        delimiter=options.delimiter,
        header=not options.no_header,
        quoting=not options.no_quoting,
        multiline=options.multiline_cells,
        keep=tuple(name.strip() for name in names),
    )


def _layout(options: argparse.Namespace, target: Target, source: inputs.Input, model: Model) -> Layout:
    embeds = options.field == "embedding"
    dimension = int(model["dimension"]) if model else DIMENSION
    columns = source.columns() if options.keep else []
    fields: dict[str, Any] = {
        "command": options.command,
        "model": {name: value for name, value in (model or {}).items() if name != "dimension"} or None,
        "sources": source.names,
        "column": options.column or inputs.DEFAULT_COLUMN,
        "keep": [column.name for column in columns],
        "shard": "{}/{}".format(*options.shard),
        "client": __version__,
    }
    if embeds:
        fields |= {"dtype": options.dtype, "dimension": dimension}
    return Layout(
        path=target.path,
        field=options.field,
        dtype=np.dtype(options.dtype if embeds else "float32"),
        dimension=dimension,
        columns=columns,
        overwrite=options.overwrite,
        dedup=embeds and options.dedup,
        skips=options.on_error == "skip",
        metadata=fields,
        compression=target.compression,
    )


def _settings(options: argparse.Namespace, target: Target, layout: Layout) -> dict[str, str]:
    """The options on which the bytes of the output depend. The digest of the sentences covers those of the input."""
    return {
        "command": f"muse {options.command}",
        "--output-format": f"{target.format} {target.compression}".strip(),
        "--column": layout.metadata["column"],
        "--keep": options.keep or "nothing",
        "columns": ", ".join(f"{column.name} ({column.arrow_type or 'untyped'})" for column in layout.columns),
        "--dtype": getattr(options, "dtype", "nothing"),
        "--dedup": "on" if getattr(options, "dedup", False) else "off",
        "--shard": layout.metadata["shard"],
    }


def _report(options: argparse.Namespace, output: Sink, summary: Summary) -> int:
    report = str(output.report) if output.report else None
    if options.json:
        fields: dict[str, Any] = {
            "output": output.name,
            "rows": summary.rows,
            "resumed": summary.resumed,
            "skipped": summary.skipped,
            "report": report,
            "seconds": round(summary.seconds, 3),
            "metadata": output.layout.metadata,
        }
        if summary.distinct is not None:
            fields["distinct"] = summary.distinct
        _print_json(fields)
    if not summary.skipped:
        return 0
    print_error(f"muse: skipped {count(summary.skipped, 'row')}{f': see {report}' if report else ''}")
    return SKIPPED_STATUS


def _exit_status(failure: Exception) -> int:
    if isinstance(failure, Stopped):
        return 130
    return failure.status if isinstance(failure, Failure) else 1


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False))
