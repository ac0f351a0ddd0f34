"""Errors of the service: the page explains what to do."""

import json
import re

import pytest

FIELD = "Texts, one per line"


@pytest.fixture
def page(open_page, proxy):
    return open_page(proxy.url)


def problem(**members):
    return json.dumps({"title": "Error", **members}).encode()


def embed(page):
    page.paste(FIELD, "a text")
    page.click("button", "Embed")


def test_exhausted_quota_is_explained(open_page, url, service):
    with service.user("limited") as name:
        service.call("PATCH", f"api/users/{name}", {"quota": {"tokens": 1, "period": "day"}})
        page = open_page(url)
        page.log_in(name, "a long password")
        page.expect(r"/embed .*status of 429")

        def rejected():
            page.click("button", "Embed")
            page.get("button", "Embed")
            return page.all("alert")

        page.paste(FIELD, "a text with some tokens")
        # Embedders know the usage after some seconds.
        page.wait(rejected, "the quota does not apply")
        page.shows(re.compile("Your quota of tokens is used up. It is renewed in .*; an administrator can raise it"), page.get("alert"))


def test_busy_service_is_retried_after_its_time(page, proxy):
    page.log_in()
    page.expect(r"/embed .*status of 429")
    proxy.inject("embed", 429, {"Retry-After": "1"}, problem(reason="OVERLOADED", detail="the queue is full"), times=2)
    embed(page)
    page.get("tab", "Tokens")
    assert proxy.count("embed") == 3


def test_busy_service_is_explained(page, proxy):
    page.log_in()
    page.expect(r"/embed .*status of 429")
    proxy.inject("embed", 429, {"Retry-After": "600"}, problem(reason="OVERLOADED", detail="the queue is full"))
    embed(page)
    page.shows("The service has more work than it can do now. Try again in 10 min.", page.get("alert"))


def test_login_while_auth_is_unavailable_is_explained(page, proxy):
    page.expect(r"/login .*status of 503")
    page.open()
    proxy.inject("login", 503, {"Retry-After": "2"}, b'{"message": "auth is unavailable"}')
    page.fill("User name", "admin")
    page.fill("Password", "admin")
    page.click("button", "Log in")
    page.shows("A part of the service is starting, or does not respond. Try again in 2 s", page.get("alert"))
    proxy.rules.clear()
    page.click("button", "Log in")
    page.get("navigation", "Main")


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("TOO_MANY_ATTEMPTS", "Too many logins have failed for this name or from this address. Try again in 2 s"),
        ("OVERLOADED", "The service has more work than it can do now. Try again in 2 s"),
    ],
)
def test_rejected_login_is_explained_by_its_reason(page, proxy, reason, advice):
    page.expect(r"/login .*status of 429")
    page.open()
    proxy.inject("login", 429, {"Retry-After": "2"}, json.dumps({"message": "wait", "reason": reason}).encode())
    page.fill("User name", "admin")
    page.fill("Password", "admin")
    page.click("button", "Log in")
    page.shows(advice, page.get("alert"))


def test_start_while_auth_is_unavailable_is_explained(page, proxy):
    page.expect(r"/api/(user|ready) .*status of 503")
    proxy.inject("api/user", 503, {"Retry-After": "2"}, problem(reason="UNAVAILABLE", detail="auth is unavailable"))
    proxy.inject("api/ready", 503, {"Retry-After": "2"}, problem(reason="UNAVAILABLE", detail="auth is unavailable"))
    page.open()
    page.shows("The service is starting, or a part of it does not respond")
    page.shows("if the error persists, report it to the operator", page.get("alert"))


def test_embed_while_auth_is_unavailable_is_explained(page, proxy):
    page.log_in()
    page.expect(r"/embed .*status of 503")
    proxy.inject("embed", 503, {"Retry-After": "600"}, b'{"message": "auth is unavailable"}')
    embed(page)
    page.shows("A part of the service is starting, or does not respond. Try again in 10 min", page.get("alert"))


def test_bad_gateway_is_explained(page, proxy):
    page.log_in()
    page.expect(r"/api/keys.* .*status of 502")
    proxy.inject("api/keys", 502, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")
    view = page.view("Keys")
    page.shows("A proxy does not reach the service", page.get("alert", within=view))
    proxy.rules.clear()
    page.click("button", "Try again", view)
    page.gone("alert", within=view)


def test_offline_is_explained_and_the_page_recovers(page):
    page.log_in()
    page.expect("ERR_INTERNET_DISCONNECTED")
    view = page.view("Users")
    offline(page, True)
    page.view("Keys")
    page.shows("Check your network connection", page.get("alert"))
    offline(page, False)
    page.click("button", "Try again")
    page.gone("alert")
    assert view


def offline(page, value):
    page.cdp("Network.emulateNetworkConditions", offline=value, latency=0, downloadThroughput=-1, uploadThroughput=-1)
