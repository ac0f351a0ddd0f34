"""Runs the last released client of the original service, unmodified.

usage: day.py PORT day|expiry    expiry: for a service whose access tokens are valid for two seconds
"""

import os
import sys
import time

import numpy as np
import requests

sys.path.insert(0, os.environ["RELEASED_CLIENT"])

import muse_as_service  # noqa: E402

SENTENCES = ["This is sentence example.", "Hi"]
TOKENS = [["▁This", "▁is", "▁sentence", "▁example", "."], ["▁Hi"]]


def error_of(call, *arguments):
    """Returns the error message of a call, which must fail."""
    try:
        call(*arguments)
    except requests.HTTPError as error:
        return str(error)
    raise AssertionError("the call succeeded")


def log_in(port):
    client = muse_as_service.MUSEClient(ip="127.0.0.1", port=port)
    client.login(username="admin", password="admin")
    return client


def day(port):
    client = muse_as_service.MUSEClient(ip="127.0.0.1", port=port)
    assert error_of(client.login, "admin", "wrong") == "401: Unauthorized"
    assert error_of(client.embed, SENTENCES) == "401: Missing Authorization Header"

    client = log_in(port)
    assert client.tokenize(SENTENCES) == TOKENS
    vectors = client.embed(SENTENCES)
    assert isinstance(vectors, np.ndarray) and vectors.shape == (2, 512)
    assert abs(vectors[1][0] - 0.11707959324121475) < 2e-6

    cookies = requests.cookies.RequestsCookieJar()
    cookies.update(client.session.cookies)
    assert set(cookies.keys()) == {"access_token_cookie", "refresh_token_cookie"}
    client.logout()
    assert not client.session.cookies, "both cookies are deleted"
    assert error_of(client.embed, SENTENCES).startswith("401: ")

    # Copies of the cookies are invalid after the logout.
    client.session.cookies.update(cookies)
    assert error_of(client.embed, SENTENCES) == "401: Token has been revoked"
    assert error_of(client._token_refresh) == "401: Token has been revoked"
    client.logout()


def expiry(port):
    client = log_in(port)
    first = client.session.cookies["access_token_cookie"]
    refresh = client.session.cookies["refresh_token_cookie"]
    time.sleep(3.1)
    assert client.tokenize(SENTENCES) == TOKENS
    assert client.session.cookies["access_token_cookie"] != first, "the token was refreshed"
    assert client.session.cookies["refresh_token_cookie"] == refresh
    time.sleep(3.1)
    assert client.embed(SENTENCES).shape == (2, 512)
    client.logout()
    client.session.cookies.set("refresh_token_cookie", refresh)
    assert error_of(client._token_refresh) == "401: Token has been revoked"


if __name__ == "__main__":
    {"day": day, "expiry": expiry}[sys.argv[2]](int(sys.argv[1]))
