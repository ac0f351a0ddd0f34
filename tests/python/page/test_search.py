"""Search: load a file, follow the embedding job, find lines by meaning."""

import json
import re

import numpy as np
import pytest
from lines import LINES, NEEDLE, QUERY, batches_after, is_batch

FIELD = "Search in any language"


@pytest.fixture
def page(open_page, proxy):
    """A page behind a proxy, which can hold requests."""
    page = open_page(proxy.url)
    page.log_in()
    return page


def results(page):
    """Return the line number, score and text of each result."""
    items = page.js("return [...arguments[0].children].map((item) => item.innerText)", page.get("list", "Results"))
    lines = [int(re.search(r"Line ([\d,]+)", item).group(1).replace(",", "")) for item in items]
    return [(line, float(re.search(r"\b[01]\.\d{3}\b", item).group()), item) for line, item in zip(lines, items)]


def test_query_in_another_language_finds_the_line(page, lines_file, service):
    view = page.view("Search")
    page.file(lines_file, view)
    page.shows("300 lines embedded", view)
    page.fill(FIELD, QUERY, view)
    page.shows("Best 20 of 300 lines", view)
    found = results(page)
    assert found[0][0] == 151 and NEEDLE in found[0][2]
    scores = service.embed(LINES) @ service.embed([QUERY])[0]
    expected = np.sort(scores)[::-1][:20]
    assert np.abs(np.array([score for _, score, _ in found]) - expected).max() < 0.0006
    assert all(abs(scores[line - 1] - score) < 0.0006 for line, score, _ in found)


def test_job_shows_progress_and_lines_are_found_meanwhile(page, lines_file, proxy):
    view = page.view("Search")
    with proxy.holding(batches_after(4)):
        page.file(lines_file, view)
        page.shows(re.compile(r"[1-9]\d* of 300 lines · [\d,.]+ lines/s · .* left"), view)
        done = int(page.get("progressbar", "Embedding", view).get_attribute("value").split(".")[0])
        assert 0 < done < 300
        page.fill(FIELD, "a cat that sleeps", view)
        page.shows(re.compile(r"Best 20 of \d+ lines"), view)
        assert "cat sleeps" in results(page)[0][2]
    page.shows("300 lines embedded", view)


def test_cancelled_job_continues_where_it_stopped(page, lines_file, proxy):
    view = page.view("Search")
    with proxy.holding(batches_after(4)):
        page.file(lines_file, view)
        page.shows(re.compile(r"\b[1-9]\d* of 300 lines"), view)
        page.click("button", "Stop", view)
        done = int(page.shows(re.compile(r"Stopped; (\d+) lines can be searched"), view).group(1))
        assert 0 < done < 300
    sent = []
    proxy.rules.append(lambda path, body: sent.extend(json.loads(body)["sentence"]) if is_batch(path, body) else None)
    page.click("button", "Continue", view)
    page.shows("300 lines embedded", view)
    assert len(sent) == 300 - done


def test_similar_lines_are_found(page, lines_file):
    view = page.view("Search")
    page.file(lines_file, view)
    page.shows("300 lines embedded", view)
    page.fill(FIELD, "The fish hides near the lake.", view)
    page.shows("Best 20", view)
    page.click("button", "Find lines similar to line 240", view)
    page.shows("Most similar to line 240", view)


def test_only_embed_receives_the_texts(page, lines_file, proxy):
    bodies = []
    proxy.rules.append(lambda path, body: bodies.append((path, body)))
    view = page.view("Search")
    page.file(lines_file, view)
    page.shows("300 lines embedded", view)
    assert {path for path, body in bodies if body} == {"embed"}
    sent = [text for path, body in bodies if path == "embed" for text in json.loads(body)["sentence"]]
    assert sorted(sent) == sorted(LINES)


def test_binary_file_is_explained(page, tmp_path):
    file = tmp_path / "picture.txt"
    file.write_bytes(bytes(range(256)) * 10)
    view = page.view("Search")
    page.file(file, view)
    page.get("alert", within=view)
    page.shows(re.compile("UTF-8|plain text"), page.get("alert", within=view))
