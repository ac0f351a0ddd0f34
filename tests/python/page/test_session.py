"""Sessions that expire or end while the page is in use."""

import proxy as proxies
import pytest
from lines import LINES, batches_after
from service import Service

PASSWORD = "a long password"


@pytest.fixture(scope="module")
def strict(strict_url):
    return Service(strict_url)


@pytest.fixture
def stack(strict_url):
    """A proxy of a stack with access tokens that are valid for 5 s."""
    with proxies.running(strict_url) as proxy:
        yield proxy


def access_token(page):
    return next(cookie["value"] for cookie in page.driver.get_cookies() if cookie["name"] == "access_token_cookie")


def test_ended_session_pauses_the_job_until_login(open_page, strict, stack, lines_file):
    with strict.user("searcher", PASSWORD) as name:
        page = open_page(stack.url)
        page.log_in(name, PASSWORD)
        page.expect(r"/(embed|token/refresh) .*status of 4(01|22)")
        view = page.view("Search")
        with stack.holding(batches_after(4)):
            page.file(lines_file, view)
            page.wait(lambda: stack.count("embed") > 4, "the job does not start")
            strict.call("DELETE", f"api/users/{name}/tokens")
        dialog = page.get("dialog", "Your session has ended")
        page.fill("Password", PASSWORD, dialog)
        page.click("button", "Log in", dialog)
        page.gone("dialog")
        page.shows("300 lines embedded", view)
        page.fill("Search in any language", LINES[7], view)
        page.shows("Best 20 of 300 lines", view)


def test_expired_access_token_is_renewed_unnoticed(open_page, strict, stack, lines_file):
    with strict.user("searcher", PASSWORD) as name:
        page = open_page(stack.url)
        page.log_in(name, PASSWORD)
        page.expect(r"/embed .*status of 401")
        view = page.view("Search")
        first = access_token(page)
        with stack.holding(batches_after(4)):
            page.file(lines_file, view)
            page.wait(lambda: stack.count("embed") > 4, "the job does not start")
            page.wait(lambda: strict.status("api/user", first) == 401, "the token does not expire")
        page.shows("300 lines embedded", view)
        assert page.all("dialog") == [] and access_token(page) != first


def test_ended_session_keeps_what_is_on_the_page(open_page, strict, stack):
    with strict.user("searcher", PASSWORD) as name:
        page = open_page(stack.url)
        page.log_in(name, PASSWORD)
        page.expect(r"status of 4(01|22)")
        page.paste("Texts, one per line", "a text that stays")
        strict.call("DELETE", f"api/users/{name}/tokens")
        page.click("button", "Embed")
        dialog = page.get("dialog", "Your session has ended")
        # Another user must not see the content.
        assert page.field("User name", dialog).get_attribute("readonly") is not None
        page.fill("Password", PASSWORD, dialog)
        page.click("button", "Log in", dialog)
        page.gone("dialog")
        assert page.field("Texts, one per line").get_property("value") == "a text that stays"
        page.click("button", "Embed")
        page.get("tab", "Tokens")


def start_job(page, proxy, lines_file):
    view = page.view("Search")
    page.file(lines_file, view)
    page.wait(lambda: proxy.count("embed") > 4, "the job does not start")


def test_logout_ends_a_running_job(open_page, proxy, lines_file):
    page = open_page(proxy.url)
    page.log_in()
    with proxy.holding(batches_after(4)):
        start_job(page, proxy, lines_file)
        # Without the question whether to leave the page.
        page.log_out()
        assert page.all("progressbar") == []
    page.get("textbox", "User name")


def test_page_leaves_when_its_cookies_are_those_of_another_user(open_page, proxy, service, lines_file):
    page = open_page(proxy.url)
    page.log_in()
    with service.user("successor", PASSWORD), proxy.holding(batches_after(4)):
        start_job(page, proxy, lines_file)
        # As by a page of the same site that knows nothing of this one.
        login = {"username": "successor", "password": PASSWORD}
        page.js(
            "return fetch('login', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(arguments[0])})",
            login,
        )
        page.js("document.dispatchEvent(new Event('visibilitychange'))")
        page.get("summary", "successor")
        assert page.all("progressbar") == []
