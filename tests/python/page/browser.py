"""Chromium and the page in it. Elements are found by role and accessible name, as a screen reader finds them."""

import json
import re
import shutil
import time
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

TIMEOUT = 30
# Reports violations of the Content-Security-Policy and of Trusted Types, exceptions, and scripts of an attack (test_xss.py).
RECORDER = """
window.__problems = [];
for (const [type, text] of [
  ["securitypolicyviolation", (event) => `${event.violatedDirective} ${event.blockedURI} ${event.sample}`],
  ["error", (event) => event.message],
  ["unhandledrejection", (event) => String(event.reason)],
]) addEventListener(type, (event) => window.__problems.push(`${type}: ${text(event)}`));
"""
# Roles of this file that Chromium has several of.
CHROMIUM_ROLES = {
    "field": ("textbox", "searchbox", "spinbutton", "combobox", "checkbox", "slider", "Date"),
    "summary": ("DisclosureTriangle", "DisclosureTriangleGrouped"),
}
# Before a login the page finds out that there is no session.
NO_SESSION = r"/(api/user|token/refresh) .*status of 401"


def program(*names):
    """Return the path of the first program that is installed; without one, skip the test."""
    path = next(filter(None, map(shutil.which, names)), None)
    return path or pytest.skip(f"chromium: {' or '.join(names)} is not installed")


def start(downloads):
    options = Options()
    # The headless shell has no windows, and needs less CPU time than Chromium's own headless mode.
    options.binary_location = program("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    # Without a sandbox it also starts as root. No name but the addresses of this machine resolves.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-background-networking", "no-first-run", "lang=en-US"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    driver.set_script_timeout(TIMEOUT)
    return driver


class Page:
    """The page in a tab of its own, without cookies."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url
        self.origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self.expected = [NO_SESSION]
        before = driver.current_window_handle
        driver.switch_to.new_window("tab")
        opened = driver.current_window_handle
        driver.switch_to.window(before)
        driver.close()
        driver.switch_to.window(opened)
        self.cdp("Network.clearBrowserCookies")
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=RECORDER)
        for log in ("browser", "performance"):
            driver.get_log(log)
        self.size(1440)

    def cdp(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def evaluate(self, expression):
        """Return the JSON value of an expression, or of its promise. The policy of the page does not apply."""
        result = self.cdp("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    # Navigation

    def open(self, view=""):
        self.driver.get(f"{self.url}/{view and '#' + view}")

    def log_in(self, username="admin", password="admin", view=""):
        self.open(view)
        self.fill("User name", username)
        self.fill("Password", password)
        self.click("button", "Log in")
        self.get("navigation", "Main")

    def log_out(self, username="admin"):
        self.click("summary", username)
        self.click("button", "Log out")
        self.get("button", "Log in")

    def view(self, title):
        """Open a view with the navigation, and return it."""
        self.click("link", title)
        self.wait(lambda: self.driver.title.startswith(f"{title} "), f"the view {title} does not open")
        return self.driver.find_element("css selector", "main > section:not([hidden])")

    def size(self, width, height=1000):
        # As on phones, where scroll bars take no room.
        self.cdp("Emulation.setScrollbarsHidden", hidden=True)
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def theme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    # Elements

    def wait(self, condition, message):
        """Return the first true value of the condition."""
        end, pause = time.monotonic() + TIMEOUT, 0.01
        while True:
            try:
                if value := condition():
                    return value
            except WebDriverException:
                pass  # The page has just replaced the element, or is being loaded.
            if time.monotonic() > end:
                pytest.fail(f"{message}; the page shows:\n{self.driver.find_element('tag name', 'body').text}")
            time.sleep(pause)
            # A condition often takes the browser as long as the page's own work.
            pause = min(1.5 * pause, 0.2)

    def all(self, role, name=None, within=None):
        """Return the visible elements of a role; the name is a text or a regular expression."""
        if within is None:
            root = self.cdp("Runtime.evaluate", expression="document")
        else:
            self.js("window.__within = arguments[0]", within)
            root = self.cdp("Runtime.evaluate", expression="window.__within")
        object_id, nodes = root["result"]["objectId"], []
        for chromium_role in CHROMIUM_ROLES.get(role, (role,)):
            found = self.cdp("Accessibility.queryAXTree", objectId=object_id, role=chromium_role)["nodes"]
            nodes += [node for node in found if not node.get("ignored") and matches(name, node.get("name", {}).get("value", ""))]
        if not nodes:
            return []
        self.js("window.__found = []")
        for node in nodes:
            element = self.cdp("DOM.resolveNode", backendNodeId=node["backendDOMNodeId"])["object"]["objectId"]
            self.cdp("Runtime.callFunctionOn", objectId=element, functionDeclaration="function () { window.__found.push(this) }")
        return self.js("return window.__found.filter((element) => element.checkVisibility({visibilityProperty: true}))")

    def only(self, role, name=None, within=None):
        """Return the element of a role and a name if there is exactly one."""
        found = self.all(role, name, within)
        return found[0] if len(found) == 1 else None

    def get(self, role, name=None, within=None):
        """Wait for the only element of a role and a name, and return it."""
        return self.wait(lambda: self.only(role, name, within), f"there is no single {role} {name!r}")

    def gone(self, role, name=None, within=None):
        self.wait(lambda: not self.all(role, name, within), f"{role} {name!r} stays")

    def click(self, role, name=None, within=None):
        def enabled():
            element = self.only(role, name, within)
            return element and element.is_enabled() and element.get_attribute("aria-disabled") != "true" and element

        self.wait(enabled, f"there is no single enabled {role} {name!r}").click()

    def field(self, label, within=None):
        """Return the form control with a label."""
        return self.wait(lambda: self.only("field", label, within), f"there is no single field {label!r}")

    def fill(self, label, text, within=None):
        field = self.field(label, within)
        if field.tag_name == "select":
            field.find_element("xpath", f"./option[normalize-space()={json.dumps(text, ensure_ascii=False)}]").click()
            return
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE, text)

    def paste(self, label, text, within=None):
        """Insert a long text at once."""
        self.field(label, within).click()
        self.cdp("Input.insertText", text=text)

    def file(self, path, within=None):
        """Choose a file in the only file input."""
        root = within or self.driver
        self.wait(lambda: root.find_elements("css selector", "input[type=file]"), "there is no file input")[0].send_keys(str(path))

    def shows(self, text, within=None):
        """Wait for a text, or a match of a regular expression, and return the match."""
        element = within or self.driver.find_element("tag name", "body")
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
        return self.wait(lambda: pattern.search(element.text), f"{text!r} does not appear")

    # Checks

    def expect(self, *patterns):
        """Expect lines of the console, such as those about failed requests."""
        self.expected += patterns

    def check(self):
        """Fail if the page logged a problem, violated the policy, called another origin, or stored anything."""
        lines = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        unexpected = [line for line in lines if not any(re.search(pattern, line) for pattern in self.expected)]
        assert not unexpected, unexpected
        requests = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [request["params"]["request"]["url"] for request in requests if request["method"] == "Network.requestWillBeSent"]
        foreign = [url for url in urls if not url.startswith((self.origin, "data:", f"blob:{self.origin}"))]
        assert urls and not foreign, foreign
        assert self.js("return window.__problems") == []
        assert self.js("return [localStorage.length, sessionStorage.length]") == [0, 0]
        assert self.driver.execute_async_script("indexedDB.databases().then(arguments[0])") == []
        assert self.js("return typeof window.__xss") == "undefined"


def matches(pattern, name):
    return pattern is None or (pattern.search(name) is not None if isinstance(pattern, re.Pattern) else name.strip() == pattern)
