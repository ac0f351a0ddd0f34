"""Executes the Python examples of docs/api/connecting.md against a running service.

An example is skipped if the paragraph before it contains "not run by the tests". The others set `vectors`, the vectors of "Hello" and
"Merhaba", or `found`, the text that is nearest to "The train is late.".
"""

import importlib.metadata
import json
import math
import os
import re
import urllib.request
from pathlib import Path

import pgvector_server
import pytest

# The programs send no telemetry, and LiteLLM does not look for new prices.
os.environ |= {"ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
GATEWAY = os.environ["GATEWAY"]
PAGE = Path(__file__).resolve().parents[2] / "docs/api/connecting.md"
NOT_RUN = "not run by the tests"
# A heading, or a block of code with its language.
PART = re.compile(r"^## (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def examples():
    """Return the heading, the paragraph before, and the code of each Python example."""
    page, found, heading = PAGE.read_text(encoding="utf-8"), [], ""
    for part in PART.finditer(page):
        if part["heading"]:
            heading = part["heading"]
        elif part["language"] == "python":
            before = page[: part.start()].rstrip().rpartition("\n\n")[2]
            found.append((heading, before, part["code"]))
    return found


RUN = [(heading, code) for heading, before, code in examples() if NOT_RUN not in " ".join(before.split()).lower()]


@pytest.fixture(scope="module")
def expected():
    """The vectors of the texts of the examples."""
    body = json.dumps({"sentence": ["Hello", "Merhaba"]}).encode()
    headers = {"Authorization": f"Bearer {os.environ['MUSE_API_KEY']}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{GATEWAY}/embed", body, headers)) as response:
        return json.load(response)["embedding"]


@pytest.fixture(scope="module")
def postgres():
    """The address of a Postgres server with pgvector."""
    with pgvector_server.server() as address:
        yield address


def run(heading, code):
    """Execute an example, and return its variables."""
    assert "localhost:5000" in code
    namespace = {"__name__": heading}
    exec(compile(code.replace("http://localhost:5000", GATEWAY), f"connecting.md, {heading}", "exec"), namespace)
    return namespace


def test_page_has_the_promised_programs():
    run_headings, all_headings = {heading for heading, _ in RUN}, re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    programs = ["OpenAI's SDK", "LangChain", "LlamaIndex", "Haystack", "LiteLLM", "Clients of text-embeddings-inference"]
    assert run_headings == {*programs, "Qdrant", "pgvector", "DuckDB"}
    assert {"curl", "Weaviate", "Open WebUI", *run_headings} < set(all_headings)


@pytest.mark.parametrize(("heading", "code"), RUN, ids=[heading for heading, _ in RUN])
def test_example_works(heading, code, expected, monkeypatch, request):
    if "POSTGRES" in code:
        monkeypatch.setenv("POSTGRES", request.getfixturevalue("postgres"))
    variables = run(heading, code)
    if "found" in variables:
        assert variables["found"] == ["Der Zug hat Verspätung."]
        return
    vectors = [[float(x) for x in vector] for vector in variables["vectors"]]
    assert len(vectors) == 2
    for vector, same in zip(vectors, expected):
        assert len(vector) == 512 and math.dist(vector, same) < 1e-5


if __name__ == "__main__":
    for package in ("openai", "haystack-ai", "litellm", "chromadb", "qdrant-client", "pgvector", "duckdb", "huggingface-hub"):
        print(package, importlib.metadata.version(package))
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", "--color=no", __file__]))
