"""The page behind a reverse proxy with a path prefix."""

import proxy as proxies
from views import VIEWS


def test_page_stays_below_its_prefix(open_page, content, url):
    with proxies.running(url, "/muse") as proxy:
        page = open_page(proxy.url)
        VIEWS["try"](page)
        for title in ("Keys", "Usage", "Users", "Status"):
            page.view(title)
        page.get("article", "Embedder 1")
        page.log_out()
        assert proxy.outside == []
        assert {"login", "logout", "embed", "tokenize", "api/status"} <= {path for _, path in proxy.requests}
