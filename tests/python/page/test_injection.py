"""Cross-site scripting: texts from users are displayed as they are, and never executed."""

import csv

import pytest

PAYLOADS = [
    "<img src=x onerror=window.__xss=1>",
    '"><script>window.__xss=1</script>',
    "'><svg onload=window.__xss=1>",
    "</textarea><script>window.__xss=1</script>",
    "javascript:window.__xss=1",
    "{{constructor.constructor('window.__xss=1')()}} ${window.__xss=1} <%= window.__xss=1 %>",
    "\\u003cimg src=x onerror=window.__xss=1\\u003e &lt;b&gt;",
    "\uff1cscript\uff1ewindow.__xss=1\uff1c/script\uff1e \u202e<b>",
]
FIELD = "Texts, one per line"


def assert_harmless(page):
    """Check that no element was created and no script ran."""
    assert page.js("return document.querySelectorAll('img, iframe, object, main script, main b').length") == 0
    assert page.js("return typeof window.__xss") == "undefined"


def texts(page, selector):
    return page.js("return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)", selector)


def assert_shown(page, texts_of_elements, payload):
    assert any(payload in text for text in texts_of_elements), (payload, texts_of_elements)


def test_sentences_are_displayed_literally(admin):
    admin.paste(FIELD, "\n".join(PAYLOADS))
    admin.click("button", "Embed")
    region = admin.get("region", "Nearest neighbours")
    for payload in PAYLOADS:
        assert_shown(admin, [region.get_property("textContent")], payload)
    admin.click("tab", "Tokens")
    admin.get("listbox", f"Tokens of line {len(PAYLOADS)}")
    admin.click("tab", "Vectors and code")
    assert_harmless(admin)


@pytest.mark.parametrize("name", PAYLOADS[:3])
def test_names_and_lines_of_files_are_displayed_literally(admin, tmp_path, name):
    # A file name has no slash.
    file = tmp_path / f"{name.replace('/', '∕')}.txt"
    file.write_text("\n".join(PAYLOADS), encoding="utf-8")
    view = admin.view("Search")
    admin.file(file, view)
    admin.shows(f"{len(PAYLOADS)} lines embedded", view)
    admin.shows(file.name, view)
    admin.fill("Search in any language", PAYLOADS[0], view)
    admin.shows("Best ", view)
    for payload in PAYLOADS:
        assert_shown(admin, texts(admin, "main li"), payload)
    assert_harmless(admin)


def test_rejected_file_name_is_displayed_literally(admin, tmp_path):
    file = tmp_path / "<img src=x onerror=window.__xss=1>.txt"
    file.write_bytes(b"\xff\xfe\xff\x00\x00")
    admin.file(file, admin.view("Try it"))
    admin.shows(file.name, admin.get("alert"))
    assert_harmless(admin)


@pytest.mark.parametrize("name", [payload for payload in PAYLOADS if len(payload.encode()) <= 100 and "\u202e" not in payload])
def test_key_names_are_displayed_literally(admin, service, name):
    view = admin.view("Keys")
    admin.click("button", "New key", view)
    admin.fill("Name", name)
    admin.click("button", "Create key")
    admin.shows(name, admin.get("dialog", "Copy the API key now"))
    admin.click("button", "I have stored the key")
    admin.click("button", f"Edit key {name}", view)
    dialog = admin.get("dialog", "Edit API key")
    assert admin.field("Name", dialog).get_property("value") == name
    admin.click("button", "Cancel", dialog)
    admin.click("button", f"Delete key {name}", view)
    dialog = admin.get("dialog", "Delete this API key?")
    admin.shows(name, dialog)
    admin.click("button", "Delete key", dialog)
    admin.gone("button", f"Delete key {name}", view)
    assert_harmless(admin)


@pytest.mark.parametrize("name", ["a&lt;b&gt;", "{{7*7}}${7}", "o'brien\";--", "javascript:1", "<b>x"])
def test_user_names_are_displayed_literally_or_rejected(admin, service, name):
    admin.expect(r"/api/users .*status of 400")
    service.remove(name)
    view = admin.view("Users")
    admin.click("button", "New user", view)
    dialog = admin.get("dialog", "New user")
    admin.fill("Name", name, dialog)
    admin.fill("Password", "a long password", dialog)
    admin.click("button", "Add user", dialog)
    admin.wait(lambda: admin.all("alert") or not admin.all("dialog"), "the dialog does not respond")
    if not admin.all("alert"):
        admin.click("button", f"Manage user {name}", view)
        admin.shows(name, admin.get("dialog", "Manage user"))
        service.remove(name)
    assert_harmless(admin)


def test_formula_in_a_key_name_is_text_in_csv(admin, service, download):
    name = '=HYPERLINK("http://127.0.0.1/","x")'
    created = service.post("api/keys", {"name": name})
    service.call("POST", "embed", {"sentence": ["counted"]}, created["key"])
    admin.wait(lambda: service.get(f"api/usage?key_id={created['id']}")["usage"], "the service does not count")
    view = admin.view("Usage")
    admin.shows(name, view)
    file = download(admin, lambda: admin.click("button", "Download CSV", view))
    rows = csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines())
    assert {row["key_name"] for row in rows if row["key_id"] == created["id"]} == {f"'{name}"}
    service.call("DELETE", f"api/keys/{created['id']}")
    assert_harmless(admin)
