"""Build hook: generates the gRPC stubs, `muse_as_service.v1`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
STUBS = HERE / "src/muse_as_service/v1"
PROTOS = [
    "muse/v1/auth.proto",
    "muse/v1/embedder.proto",
    "muse/v1/key.proto",
    "muse/v1/usage.proto",
    "muse/v1/user.proto",
]


class StubsHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        protos = HERE.parent / "proto"
        if protos.is_dir():
            make_stubs(protos)
        elif not STUBS.is_dir():
            # A source distribution contains the stubs instead of the .proto files.
            raise SystemExit(
                f"neither {protos} nor {STUBS} exists: build from a checkout or from a source distribution"
            )


def make_stubs(protos: Path) -> None:
    from grpc_tools import protoc

    # The .proto files keep their names: protobuf's registry rejects a second registration under another name, so the
    # stubs work together with other stubs of the same files in one process.
    made = STUBS.parent / "muse/v1"
    made.mkdir(parents=True, exist_ok=True)
    out = STUBS.parent
    options = [f"-I{protos}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *options, *PROTOS]) != 0:
        raise SystemExit(f"protoc cannot compile the files of {protos}")
    STUBS.mkdir(exist_ok=True)
    (STUBS / "__init__.py").write_text('"""gRPC stubs of muse.v1, generated from the project\'s .proto files."""\n')
    for file in made.iterdir():
        text = file.read_text(encoding="utf-8")
        # protoc derives the import path from the folder of the .proto file and has no option to change it.
        text = re.sub(r"^from muse\.v1 import", "from muse_as_service.v1 import", text, flags=re.MULTILINE)
        (STUBS / file.name).write_text(text, encoding="utf-8")
        file.unlink()
    made.rmdir()
    made.parent.rmdir()
