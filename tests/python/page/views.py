"""The views of the page with content, for the tests of their appearance and accessibility."""

import re


def login_page(page):
    page.open()
    page.shows("The service is up")


def try_it(page):
    page.log_in()
    page.view("Try it")
    page.click("button", "Load one sentence in 16 languages")
    page.get("table", "Cosine similarity of each pair of lines, from −1 to 1")
    page.get("table", None, page.get("region", "Nearest neighbours"))


def tokens(page):
    try_it(page)
    page.click("tab", "Tokens")
    page.get("listbox", "Tokens of line 18")


def code(page):
    try_it(page)
    page.click("tab", "Vectors and code")
    page.click("tab", "Python")


def search(page):
    page.log_in()
    view = page.view("Search")
    page.click("button", "Use 20 sample sentences", view)
    page.shows("20 lines embedded", view)
    page.fill("Search in any language", "I forgot my password", view)
    page.shows("Best 20 of 20 lines", view)


def keys(page):
    page.log_in()
    page.get("table", "API keys", page.view("Keys"))


def usage(page):
    page.log_in()
    page.get("table", "Usage by user and API key", page.view("Usage"))


def users(page):
    page.log_in()
    page.get("table", "Users", page.view("Users"))


def status(page):
    page.log_in()
    page.get("article", "Embedder 1", page.view("Status"))


def account(page):
    page.log_in(view="account")
    page.shows("Administrator", page.driver.find_element("css selector", "main > section"))


def new_key(page):
    page.log_in()
    page.click("button", "New key", page.view("Keys"))
    page.get("dialog", "New API key")


def new_user(page):
    page.log_in()
    page.click("button", "New user", page.view("Users"))
    page.get("dialog", "New user")


def manage_user(page):
    page.log_in()
    page.click("button", "Manage user admin", page.view("Users"))
    page.click("summary", re.compile("^Password"), page.get("dialog", "Manage user"))


VIEWS = {
    "login": login_page,
    "try": try_it,
    "tokens": tokens,
    "code": code,
    "search": search,
    "keys": keys,
    "usage": usage,
    "users": users,
    "status": status,
    "account": account,
}
DIALOGS = {"new-key": new_key, "new-user": new_user, "manage-user": manage_user}
