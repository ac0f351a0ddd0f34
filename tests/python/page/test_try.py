"""Try it: tokens, similarities, nearest neighbours and downloads."""

import csv
import io
import json
import re

import numpy as np
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

LINES = [
    "Where is the library?",
    "¿Dónde está la biblioteca?",
    "図書館はどこですか。",
    "أين المكتبة؟",
    'It costs 5 €, "tax" & tip included 🎉👩‍👩‍👧',
    "Cafe\u0301 <b>bold</b>\ttab",
]
FIELD = "Texts, one per line"
MATRIX = "Cosine similarity of each pair of lines, from −1 to 1"


def embed(page, lines):
    page.paste(FIELD, "\n".join(lines))
    page.click("button", "Embed")
    return table(page)


def table(page):
    """Wait for the heat map, and return its rows: the number of the line, and the similarities."""

    def complete():
        # New results replace the element.
        element = page.get("table", MATRIX)
        return element if element.get_attribute("data-complete") is not None else None

    element = page.wait(complete, "the heat map stays incomplete")
    rows = page.js(
        "return [...arguments[0].tBodies].flatMap((body) => [...body.rows]).map((row) => [...row.cells].map((cell) => cell.innerText))",
        element,
    )
    return [(int(re.match(r"\d+", head).group()), [number(cell) for cell in cells]) for head, *cells in rows]


def number(text):
    return float(text.replace("−", "-"))


def similarities(service, lines):
    vectors = service.embed(lines)
    return vectors @ vectors.T


def test_heat_map_has_the_similarities_of_the_vectors(admin, service):
    rows = embed(admin, LINES)
    assert [head for head, _ in rows] == [1, 2, 3, 4, 5, 6]
    assert np.abs(np.array([cells for _, cells in rows]) - similarities(service, LINES)).max() < 0.0051


def test_example_compares_16_languages(admin):
    admin.click("button", "Load one sentence in 16 languages")
    matrix = np.array([cells for _, cells in table(admin)])
    assert matrix.shape == (18, 18)
    # The translations of a sentence are more similar to each other than to another sentence.
    assert matrix[:16, :16].min() > matrix[:16, 16:].max()


def test_nearest_neighbour_of_each_line(admin, service):
    embed(admin, LINES)
    matrix = similarities(service, LINES)
    np.fill_diagonal(matrix, -2)
    region = admin.get("region", "Nearest neighbours")
    rows = admin.js(
        "return [...arguments[0].querySelector('tbody').rows].map((row) => [...row.cells].map((cell) => cell.innerText))", region
    )
    for index, (line, neighbour, score) in enumerate(rows):
        nearest = int(matrix[index].argmax())
        assert line.startswith(str(index + 1)) and neighbour.startswith(str(nearest + 1))
        assert abs(number(score) - matrix[index, nearest]) < 0.0051


def test_lines_are_sorted_by_similarity(admin, service):
    embed(admin, LINES)
    Select(admin.field("Order")).select_by_value("3")
    rows = admin.wait(lambda: (rows := table(admin)) and rows[0][0] == 4 and rows, "the rows stay in their order")
    expected = sorted(range(6), key=lambda line: -similarities(service, LINES)[3, line])
    assert [head - 1 for head, _ in rows] == expected
    # The columns have the order of the rows.
    assert rows[0][1] == sorted(rows[0][1], reverse=True)


def test_threshold_counts_the_pairs(admin, service):
    embed(admin, LINES)
    slider = admin.get("slider", "Threshold")
    slider.send_keys(*[Keys.ARROW_RIGHT] * 50)
    matrix = similarities(service, LINES)
    pairs = sum(bool(matrix[i, j] >= 0.5) for i in range(6) for j in range(i))
    admin.shows(f"≥ 0.50: {pairs} of 15 pairs")


def test_tokens_have_ids_and_byte_offsets(admin, service):
    embed(admin, LINES)
    admin.click("tab", "Tokens")
    expected = service.post("tokenize", {"sentence": LINES, "details": True})
    for line, text in enumerate(LINES):
        pieces = admin.get("listbox", f"Tokens of line {line + 1}").find_elements("css selector", "[role=option]")
        labels = [piece.get_attribute("aria-label") for piece in pieces]
        assert len(labels) == len(expected["tokens"][line])
        for label, token, token_id, (start, end) in zip(labels, expected["tokens"][line], expected["ids"][line], expected["bytes"][line]):
            assert label.endswith(f", id {token_id}, bytes {start}–{end}")
            shown = text.encode()[start:end].decode() if token == "<unk>" else token
            assert label.startswith(shown)
    total = sum(map(len, expected["tokens"]))
    admin.shows(f"{total} tokens in 6 lines of {sum(len(text.encode()) for text in LINES)} bytes")
    ActionChains(admin.driver).move_to_element(
        admin.get("listbox", "Tokens of line 3").find_element("css selector", "[role=option]")
    ).perform()
    (start, end), (first, last) = expected["bytes"][2][0], expected["chars"][2][0]
    admin.shows(f"id {expected['ids'][2][0]} · bytes {start}–{end} (end excluded) · characters {first}–{last} · token 1 of line 3")


def test_vectors_are_downloaded_and_copied(admin, service, download):
    embed(admin, LINES)
    expected = service.embed(LINES)
    admin.click("tab", "Vectors and code")
    npy = download(admin, lambda: admin.click("button", "Download .npy"))
    vectors = np.load(npy)
    assert vectors.dtype == np.float32 and np.abs(vectors - expected).max() < 1e-6
    text = download(admin, lambda: admin.click("button", "Download CSV")).read_text(encoding="utf-8-sig")
    header, *rows = csv.reader(io.StringIO(text))
    assert header[:2] == ["text", "v0"] and [row[0] for row in rows] == LINES
    assert np.array_equal(np.array([row[1:] for row in rows], dtype=np.float32), vectors)
    admin.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"], origin=admin.origin)
    admin.click("button", "Copy as JSON")
    admin.wait(lambda: admin.js("return document.getElementById('live').textContent") == "Copied", "nothing is copied")
    copied = json.loads(admin.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])"))
    assert np.array_equal(np.array(copied, dtype=np.float32), vectors)


def test_text_file_is_chosen_or_dropped(admin, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("one\r\ntwo\n\nthree\n", encoding="utf-8")
    admin.file(file, admin.view("Try it"))
    assert len(table(admin)) == 3
    drop = """
    const data = new DataTransfer();
    data.items.add(new File(["four\\nfive"], "dropped.txt", {type: "text/plain"}));
    arguments[0].dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    """
    admin.js(drop, admin.field(FIELD))
    admin.wait(lambda: len(table(admin)) == 2, "the dropped file is not loaded")


def test_more_than_100_lines_are_explained(admin):
    admin.paste(FIELD, "\n".join(f"line {n}" for n in range(101)))
    admin.click("button", "Embed")
    admin.shows("more than 100", admin.get("alert"))
    admin.click("button", "Use the first 100 lines")
    admin.shows("100 of 100 lines")


def test_empty_input_is_explained(admin):
    admin.click("button", "Embed")
    admin.shows("Enter at least one line", admin.get("alert"))
