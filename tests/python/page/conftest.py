import os
from pathlib import Path

import browser
import proxy as proxies
import pytest
from lines import LINES
from service import Service


def url_of(variable):
    return os.environ.get(variable) or pytest.fail(f"{variable} must be the URL of a stack: run the tests with 'cargo test --test page'")


@pytest.fixture(scope="session")
def url():
    """The URL of a stack with the user admin / admin."""
    return url_of("MUSE_TEST_URL")


@pytest.fixture(scope="session")
def strict_url():
    """The URL of a stack with access tokens that are valid for 2 s, and with a short queue."""
    return url_of("MUSE_TEST_STRICT_URL")


@pytest.fixture(scope="session")
def service(url):
    return Service(url)


@pytest.fixture(scope="session")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def driver(downloads):
    driver = browser.start(downloads)
    yield driver
    driver.quit()


@pytest.fixture
def open_page(driver):
    """Opens a page in a new tab without cookies; the tab is checked after the test."""
    opened = []

    def open_page(url):
        opened.append(browser.Page(driver, url))
        return opened[-1]

    yield open_page
    if opened:
        opened[-1].check()


@pytest.fixture
def page(open_page, url):
    return open_page(url)


@pytest.fixture
def admin(page):
    """The page, logged in as admin."""
    page.log_in()
    return page


@pytest.fixture
def lines_file(tmp_path):
    """A file of 300 lines."""
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


@pytest.fixture
def download(downloads):
    """Returns the file that an action downloads, and removes it afterwards."""
    files = []

    def complete(before):
        # Chromium renames the file when it is complete.
        added = set(downloads.iterdir()) - before
        return [file for file in added if file.suffix != ".crdownload" and not file.name.startswith(".")]

    def download(page, action):
        before = set(downloads.iterdir())
        action()
        files.extend(page.wait(lambda: complete(before), "nothing is downloaded"))
        return files[-1]

    yield download
    for file in files:
        file.unlink()


@pytest.fixture
def proxy(url):
    with proxies.running(url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def content(service):
    """A key, a user and usage, which the views show."""
    key = service.post("api/keys", {"name": "nightly import", "bulk": True, "quota": {"tokens": 1_000_000, "period": "day"}})
    with service.user("maria"):
        service.call("POST", "embed", {"sentence": ["Where is the library?", "¿Dónde está la biblioteca?"]}, key["key"])
        yield
    service.call("DELETE", f"api/keys/{key['id']}")


@pytest.fixture
def screenshots():
    """The folder for screenshots; None if the test only checks the layout."""
    if "MUSE_SCREENSHOTS" not in os.environ:
        return None
    folder = Path(os.environ["MUSE_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder
