"""Usage: one's own and everyone's, as chart, table and CSV."""

import csv
import re
import uuid


def test_usage_of_a_call_appears(admin, service):
    # Usage stays when a user is removed.
    with service.user(f"counted-{uuid.uuid4().hex[:8]}") as name:
        token = service.log_in(name, "a long password")["access_token"]
        service.post("embed", {"sentence": ["one", "two", "three"]}, token)
        # Embedders report their counts every two seconds.
        admin.wait(lambda: service.get(f"api/usage?by=user&user={name}")["usage"], "the service does not count")
        view = admin.view("Usage")
        admin.fill("Show", "One user…", view)
        admin.fill("User", name + "\ue007", view)
        admin.get("image", re.compile("^Tokens by day .*: [1-9].* in total"), view)
        admin.click("radio", re.compile("^Sentences"), view)
        admin.get("image", re.compile("^Sentences by day .*: 3 sentences in total"), view)
        table = admin.get("table", "Usage by user and API key", view)
        assert [cell.text for cell in table.find_elements("css selector", "tbody td")][:3] == [name, "no key (login)", "3"]


def test_users_see_their_own_usage_only(page, service):
    with service.user("alone") as name:
        page.log_in(name, "a long password")
        view = page.view("Usage")
        page.shows("No requests in this period", view)
        assert page.all("combobox", "Show", view) == []


def test_csv_has_the_rows_of_the_service(admin, service, download):
    service.embed(["a sentence that counts"])
    admin.wait(lambda: service.get("api/usage?limit=1")["usage"], "the service does not count")
    view = admin.view("Usage")
    file = download(admin, lambda: admin.click("button", "Download CSV", view))
    assert re.fullmatch(r"muse-usage-\d{4}-\d\d-\d\d-to-\d{4}-\d\d-\d\d\.csv", file.name)
    rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    expected = service.get("api/usage?limit=1000")["usage"]
    days = {(row["day"], row["user"], row["key_id"] or "") for row in expected}
    assert {(row["day"], row["user"], row["key_id"]) for row in rows} == days
    assert all(int(row["tokens"]) >= 0 for row in rows)


def test_arrow_keys_read_the_chart(admin):
    view = admin.view("Usage")
    slider = admin.get("slider", re.compile("^Value of a bar: Tokens by day"), view)
    before = slider.get_attribute("aria-valuetext")
    slider.send_keys("\ue012")
    assert re.match(r"\d{4}-\d\d-\d\d: [\d,]+ tokens", slider.get_attribute("aria-valuetext"))
    assert slider.get_attribute("aria-valuetext") != before


def test_error_hides_the_rows_of_another_filter(admin, service):
    service.embed(["a sentence that counts"])
    admin.wait(lambda: service.get("api/usage?limit=1")["usage"], "the service does not count")
    admin.expect(r"/api/(usage|keys).*status of 404")
    view = admin.view("Usage")
    admin.get("table", "Usage by user and API key", view)
    admin.fill("Show", "One user…", view)
    admin.fill("User", "nobody-here\ue007", view)
    admin.get("alert", None, view)
    admin.gone("table", "Usage by user and API key", view)
