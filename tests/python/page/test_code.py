"""Try it: the displayed code is executed as it is."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_try import embed

ROOT = Path(__file__).parents[3]
LINES = [
    "it's \"quoted\", 'twice' and `back`",
    "$HOME $(touch /tmp/executed) ${PATH} !! %s {} {{template}} \\",
    "JSON",
    "'; echo injected; '",
    "back\\slash \\n \\u0041 \x7f",
    "日本語 🎉 \u202eright to left\u202c \u2028 separator",
    "# comment // -- <EOF",
]
APPENDED = "\nimport json\nprint(json.dumps([list(map(float, vector)) for vector in vectors]))\n"


@pytest.fixture
def key(service):
    created = service.post("api/keys", {"name": "code"})
    yield created["key"]
    service.call("DELETE", f"api/keys/{created['id']}")


def displayed_code(page, language):
    embed(page, LINES)
    page.click("tab", "Vectors and code")
    page.click("tab", language)
    return page.get("code", None, page.get("tabpanel", language)).get_property("textContent")


def output_of(command, key, **options):
    environment = {**os.environ, "MUSE_API_KEY": key, "PATH": f"{ROOT / 'tests/python'}:{os.environ['PATH']}"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_vectors(vectors, service):
    assert np.abs(np.array(vectors) - service.embed(LINES)).max() < 1e-5


def test_curl_command_returns_the_vectors(admin, service, key):
    code = displayed_code(admin, "curl")
    assert_vectors(json.loads(output_of(["bash", "-c", code], key))["embedding"], service)


@pytest.mark.parametrize(("language", "python"), [("Python", ROOT / "target/client"), ("OpenAI SDK", Path(os.environ.get("SDK_VENV", "")))])
def test_python_code_returns_the_vectors(admin, service, key, language, python):
    code = displayed_code(admin, language) + APPENDED
    output = output_of([python / "bin/python", "-"], key, input=code)
    assert_vectors(json.loads(output.splitlines()[-1]), service)


def test_grpcurl_command_returns_the_vectors(admin, service, key):
    code = displayed_code(admin, "grpcurl")
    response = json.loads(output_of(["bash", "-c", code], key))
    assert len(response["embeddings"]) == len(LINES)
