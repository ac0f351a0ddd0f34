"""Keys: create, use, change, disable, delete."""

import json
import re
import subprocess


def create(page, name):
    """Create a key, and return the view, the key and the displayed command."""
    view = page.view("Keys")
    page.click("button", "New key", view)
    dialog = page.get("dialog", "New API key")
    page.fill("Name", name, dialog)
    page.click("button", "Create key", dialog)
    dialog = page.get("dialog", "Copy the API key now")
    key = page.shows(re.compile(r"muse_\w+"), dialog).group()
    command = dialog.find_element("tag name", "pre").text
    page.click("button", "I have stored the key", dialog)
    page.gone("dialog")
    return view, key, command


def test_key_is_shown_once_with_a_working_command(admin):
    view, key, command = create(admin, "shown once")
    assert key in command
    output = subprocess.run(["bash", "-c", f"{command} --silent --fail"], capture_output=True, text=True, check=True).stdout
    assert len(json.loads(output)["embedding"][0]) == 512
    assert key not in admin.driver.page_source
    admin.shows("shown once", view)


def test_copied_command_is_the_displayed_one(admin):
    admin.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"], origin=admin.origin)
    view = admin.view("Keys")
    admin.click("button", "New key", view)
    admin.fill("Name", "copied")
    admin.click("button", "Create key")
    dialog = admin.get("dialog", "Copy the API key now")
    admin.click("button", "Copy command", dialog)
    admin.shows("Copied", dialog)
    copied = admin.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == dialog.find_element("tag name", "pre").text


def test_disabled_key_is_rejected_until_enabled(admin, service):
    view, key, _ = create(admin, "switched")
    assert service.status("embed?sentence=a", key) == 200
    admin.click("button", "Disable key switched", view)
    admin.shows("Disabled", view)
    admin.wait(lambda: service.status("embed?sentence=a", key) == 401, "the key stays valid")
    admin.click("button", "Enable key switched", view)
    admin.get("button", "Disable key switched", view)
    admin.wait(lambda: service.status("embed?sentence=a", key) == 200, "the key stays disabled")


def test_deleted_key_is_rejected_and_leaves_list(admin, service):
    view, key, _ = create(admin, "deleted soon")
    admin.click("button", "Delete key deleted soon", view)
    dialog = admin.get("dialog", "Delete this API key?")
    admin.click("button", "Cancel", dialog)
    admin.gone("dialog")
    assert service.status("embed?sentence=a", key) == 200
    admin.click("button", "Delete key deleted soon", view)
    admin.click("button", "Delete key", admin.get("dialog", "Delete this API key?"))
    admin.gone("button", "Delete key deleted soon", view)
    admin.wait(lambda: service.status("embed?sentence=a", key) == 401, "the key stays valid")


def test_edited_key_has_new_name_and_quota(admin, service):
    view, key, _ = create(admin, "old name")
    admin.click("button", "Edit key old name", view)
    dialog = admin.get("dialog", "Edit API key")
    admin.fill("Name", "new name", dialog)
    admin.fill("Quota", "Tokens per day (UTC)", dialog)
    admin.fill("Tokens", "12345", dialog)
    admin.click("button", "Save", dialog)
    admin.shows("12,345 tokens per day", view)
    described = service.get("api/key", token=key)
    assert (described["name"], described["quota"]) == ("new name", {"tokens": 12345, "period": "day"})


def test_last_use_is_shown(admin, service):
    view, key, _ = create(admin, "used today")
    row = admin.get("button", "Edit key used today", view).find_element("xpath", "./ancestor::tr")
    assert "never" in row.text
    service.call("GET", "embed?sentence=a", token=key)

    def used():
        admin.view("Status")
        row = admin.get("button", "Edit key used today", admin.view("Keys")).find_element("xpath", "./ancestor::tr")
        return re.search(r"\d{1,2} \w{3,4} \d{4} UTC", row.text)

    admin.wait(used, "the last use does not appear")
