"""schemathesis hooks: credentials of requests, and a deserializer for .npy bodies."""

import json
import os
import re
import urllib.request

import schemathesis

GATEWAY = os.environ["GATEWAY"]


def post(path, body=b"", **headers):
    request = urllib.request.Request(GATEWAY + path, body, headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def login():
    return post("/login", b"username=admin&password=admin")


# Credentials of routes that do not take the access token of the run, or revoke it.
TOKENS = {
    "/api/key": lambda: os.environ["API_KEY"],
    "/token/refresh": lambda: os.environ["REFRESH_TOKEN"],
    "/logout/access": lambda: login()["access_token"],
    "/logout/refresh": lambda: login()["refresh_token"],
}


@schemathesis.auth(refresh_interval=None)
class Token:
    def get(self, case, context):
        if not case.operation.definition.raw.get("security"):
            return None
        return TOKENS.get(case.operation.path, lambda: os.environ["ACCESS_TOKEN"])()

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Omit a fingerprint that is meant to be valid: the phase "coverage" ignores the pattern of headers."""
    value = (case.headers or {}).get("muse-fingerprint")
    is_valid = value is None or re.fullmatch("[a-z0-9]+-[0-9a-f]{12}", value)
    if not is_valid and case.meta and case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE:
        del case.headers["muse-fingerprint"]


@schemathesis.deserializer("application/octet-stream")
def npy(context, response):
    assert response.content.startswith(b"\x93NUMPY"), response.content[:16]
    return response.content.decode("latin-1")
