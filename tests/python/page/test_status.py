"""Status: versions, limits, health and load."""

import json
import re

# The timers of the page run 100 times as fast.
FAST_CLOCK = "const timeout = setTimeout; window.setTimeout = (action, time, ...rest) => timeout(action, time / 100, ...rest);"


def test_status_shows_service_and_limits(admin, service):
    status = service.get("api/status")
    view = admin.view("Status")
    model, limits = status["model"], status["limits"]
    admin.shows(model["name"], view)
    for text in (
        status["version"],
        model["source_sha256"],
        model["fingerprint"],
        model["kernel"],
        f"{limits['max_sentences']:,} sentences",
        f"{limits['max_sentence_tokens']:,} tokens",
    ):
        admin.shows(text, view)
    admin.shows(re.compile("16: Arabic.*Turkish"), view)


def test_health_has_text(admin):
    view = admin.view("Status")
    admin.shows("The embedder responds", view)
    admin.shows(re.compile(r"running for \d+ \w+"), view)


def test_load_appears_in_sparklines(admin, service):
    view = admin.view("Status")
    card = admin.get("article", "Embedder 1", view)
    names = ("Sentences", "Queue", "Median latency", "p99 latency", "Rejections")
    for name in names:
        admin.get("image", re.compile(f"^{name}, last 10 minutes: "), card)
    service.embed(["Where is the library?"] * 40)
    for name in ("Sentences", "Median latency", "p99 latency"):
        admin.get("image", re.compile(f"^{name}, .*highest [1-9]"), card)


def test_figures_survive_failed_polls(open_page, proxy):
    page = open_page(proxy.url)
    page.log_in()
    view = page.view("Status")
    page.get("article", "Embedder 1", view)
    page.expect(r"api/status .*status of 503")
    proxy.inject("api/status", 503, {"Retry-After": "1"})
    page.shows("A part of the service is starting, or does not respond", page.get("alert", within=view))
    page.get("article", "Embedder 1", view)
    proxy.rules.clear()
    page.gone("alert", within=view)


def test_hidden_view_does_not_poll(open_page, proxy):
    page = open_page(proxy.url)
    page.cdp("Page.addScriptToEvaluateOnNewDocument", source=FAST_CLOCK)
    page.log_in()
    page.view("Status")
    page.wait(lambda: proxy.count("api/status") > 3, "the view does not poll")
    page.view("Keys")
    before = proxy.count("api/status")
    page.driver.execute_async_script("setTimeout(arguments[0], 60_000)")
    # A poll may have been on its way.
    assert proxy.count("api/status") <= before + 1


def test_unavailable_embedder_is_explained(open_page, proxy, service):
    status = service.get("api/status")
    status.update(model=None, limits=None, problem="no embedder serves", embedders_serving=0, embedders=[])
    proxy.inject("api/status", 200, {"Content-Type": "application/json"}, json.dumps(status).encode())
    page = open_page(proxy.url)
    page.log_in()
    page.shows("No embedder responds", page.view("Status"))
    page.shows("fail with status 503: no embedder serves.")
