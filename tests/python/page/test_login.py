"""Log in and out."""

from selenium.webdriver.common.keys import Keys


def test_page_without_login_explains_service(page):
    page.open()
    page.get("heading", "Sentences as vectors, in 16 languages")
    page.shows("The service is up")
    page.get("heading", "How to get access")
    page.get("textbox", "User name")
    assert page.all("navigation", "Main") == []


def test_wrong_password_is_explained(page):
    page.open()
    page.expect(r"/login .*status of 401")
    page.fill("User name", "admin")
    page.fill("Password", "wrong" + Keys.ENTER)
    page.shows("Check the name and the password", within=page.get("alert"))
    page.fill("Password", "admin" + Keys.ENTER)
    page.get("navigation", "Main")


def test_logout_ends_session_and_leaves_nothing(admin, service):
    sentence = "a sentence that nobody else may read"
    admin.paste("Texts, one per line", sentence)
    cookies = {cookie["name"]: cookie["value"] for cookie in admin.driver.get_cookies()}
    assert service.status("api/user", cookies["access_token_cookie"]) == 200
    admin.log_out()
    assert admin.driver.get_cookies() == []
    assert service.status("api/user", cookies["access_token_cookie"]) == 401

    with service.user("reader"):
        admin.log_in("reader", "a long password")
        assert sentence not in admin.driver.page_source
        assert sentence not in [field.get_property("value") for field in admin.all("textbox")]
        assert admin.all("link", "Users") == []
        admin.driver.back()
        assert sentence not in admin.driver.page_source
        # The page is checked after the test.
        admin.driver.forward()


def test_session_survives_reload(admin):
    admin.open("status")
    admin.get("heading", "Status")
    admin.driver.refresh()
    admin.get("heading", "Status")


def test_cookies_are_invisible_to_scripts(admin):
    assert admin.js("return document.cookie") == ""
    assert all(cookie["httpOnly"] for cookie in admin.driver.get_cookies())
