"""Users, for administrators; and one's own account."""

import re
import urllib.error

import pytest

PASSWORD = "a long password"


def manage(page, name, section):
    """Open a section of the dialog of a user."""
    page.click("button", f"Manage user {name}", page.view("Users"))
    dialog = page.get("dialog", "Manage user")
    page.click("summary", re.compile(f"^{section}"), dialog)
    return dialog


def confirm(page, dialog, action):
    """Press a button that asks before it acts, and confirm."""
    page.click("button", action, dialog)
    page.click("button", action, page.get("dialog", f"{action}?"))
    page.gone("dialog")


def test_added_user_can_log_in(admin, service):
    service.remove("newcomer")
    view = admin.view("Users")
    admin.click("button", "New user", view)
    dialog = admin.get("dialog", "New user")
    admin.fill("Name", "newcomer", dialog)
    admin.fill("Password", PASSWORD, dialog)
    admin.click("button", "Add user", dialog)
    admin.get("button", "Manage user newcomer", view)
    assert service.log_in("newcomer", PASSWORD)["access_token"]
    service.remove("newcomer")


def test_invalid_name_is_explained(admin):
    admin.expect(r"api/users .*status of 4")
    view = admin.view("Users")
    admin.click("button", "New user", view)
    dialog = admin.get("dialog", "New user")
    admin.fill("Name", "two\u202ewords", dialog)
    admin.fill("Password", PASSWORD, dialog)
    admin.click("button", "Add user", dialog)
    admin.shows("Correct the input", admin.get("alert", within=dialog))


def test_role_quota_and_password_change(admin, service):
    with service.user("changed") as name:
        dialog = manage(admin, name, "Role")
        admin.fill("New role", "Administrator", dialog)
        admin.click("button", "Save role", dialog)
        admin.gone("dialog")
        dialog = manage(admin, name, "Quota")
        admin.fill("Quota", "Tokens per calendar month (UTC)", dialog)
        admin.fill("Tokens", "5000", dialog)
        admin.click("button", "Save quota", dialog)
        admin.gone("dialog")
        admin.shows("5,000 tokens per month")
        described = service.get(f"api/users/{name}")
        assert (described["role"], described["quota"]) == ("admin", {"tokens": 5000, "period": "month"})
        dialog = manage(admin, name, "Password")
        admin.fill("New password", "another long password", dialog)
        admin.click("button", "Change password", dialog)
        admin.gone("dialog")
        assert service.log_in(name, "another long password")


def test_disabled_user_cannot_log_in_until_enabled(admin, service):
    with service.user("paused") as name:
        token = service.log_in(name, PASSWORD)["access_token"]
        dialog = manage(admin, name, "Disable")
        confirm(admin, dialog, "Disable user")
        admin.wait(lambda: service.status("api/user", token) == 401, "the token stays valid")
        with pytest.raises(urllib.error.HTTPError):
            service.log_in(name, PASSWORD)
        dialog = manage(admin, name, "Enable")
        admin.click("button", "Enable user", dialog)
        admin.gone("dialog")
        assert service.log_in(name, PASSWORD)


def test_revoked_tokens_are_invalid(admin, service):
    with service.user("revoked") as name:
        token = service.log_in(name, PASSWORD)["access_token"]
        dialog = manage(admin, name, "Access tokens")
        confirm(admin, dialog, "Revoke access tokens")
        admin.wait(lambda: service.status("api/user", token) == 401, "the token stays valid")


def test_removed_user_leaves_the_list(admin, service):
    with service.user("removed") as name:
        dialog = manage(admin, name, "Remove")
        confirm(admin, dialog, "Remove user")
        admin.gone("button", f"Manage user {name}")
        with pytest.raises(urllib.error.HTTPError):
            service.log_in(name, PASSWORD)


def test_last_admin_stays_admin(admin, service):
    admin.expect(r"api/users/admin .*status of 409")
    dialog = manage(admin, "admin", "Role")
    admin.fill("New role", "User", dialog)
    admin.click("button", "Save role", dialog)
    admin.click("button", "Become a user", admin.get("dialog", "Give up your own role?"))
    admin.shows("Make another user an administrator first", admin.get("alert", within=dialog))
    assert service.get("api/users/admin")["role"] == "admin"


def test_users_change_their_own_password(page, service):
    with service.user("own") as name:
        page.log_in(name, PASSWORD)
        page.open("account")
        page.fill("Current password", PASSWORD)
        page.fill("New password", "my new password")
        page.click("button", "Change password")
        page.get("button", "Log in")
        page.log_in(name, "my new password")


def test_users_view_is_for_admins(page, service):
    with service.user("plain") as name:
        page.log_in(name, PASSWORD, view="users")
        assert page.all("link", "Users") == [] and page.all("heading", "Users") == []
