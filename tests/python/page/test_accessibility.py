"""axe-core, and the use by keyboard alone."""

import importlib.resources
import json

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from views import DIALOGS, VIEWS

# The package contains it for Playwright, which is not used.
AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")
# What Tab reaches in a view; of a radio group the selected button.
FOCUSABLE = """
const all = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]");
return [...all].filter((element) => {
  if (element.tabIndex < 0 || element.disabled || !element.checkVisibility({visibilityProperty: true})) return false;
  return element.type !== "radio" || element.checked;
});
"""
HAS_VISIBLE_FOCUS = """
for (let element = document.activeElement; element; element = element.parentElement) {
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  if (outlineStyle !== "none" && parseFloat(outlineWidth) >= 1) return true;
}
return false;
"""


def press(page, *keys):
    ActionChains(page.driver).send_keys(*keys).perform()


@pytest.mark.parametrize("name", [*VIEWS, *DIALOGS])
def test_axe_finds_nothing_serious(page, content, name):
    {**VIEWS, **DIALOGS}[name](page)
    page.evaluate(AXE)
    for theme in ("light", "dark"):
        page.theme(theme)
        for width in (390, 1440):
            page.size(width)
            violations = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations)")
            serious = [describe(violation) for violation in violations if violation["impact"] in SERIOUS]
            assert not serious, f"{theme}, {width} px:\n" + "\n".join(serious)


def describe(violation):
    nodes = [f"{node['html'][:200]} {json.dumps([check['message'] for check in node['any']])}" for node in violation["nodes"][:5]]
    return f"{violation['id']} ({violation['impact']}): {violation['help']}\n  " + "\n  ".join(nodes)


@pytest.mark.parametrize("name", VIEWS)
def test_tab_reaches_every_control_visibly(page, content, name):
    VIEWS[name](page)
    expected = page.js(FOCUSABLE)
    assert expected
    page.js("document.activeElement.blur(); scrollTo(0, 0); window.__unreached = new Set(arguments[0])", expected)
    # A date has four parts, each with a stop of its own.
    dates = page.js("return document.querySelectorAll('input[type=date]').length")
    for _ in range(len(expected) + 1 + 3 * dates):
        press(page, Keys.TAB)
        page.js("window.__unreached.delete(document.activeElement)")
        at = page.js("return document.activeElement === document.body ? '' : document.activeElement.outerHTML.slice(0, 200)")
        assert not at or page.js(HAS_VISIBLE_FOCUS), f"the focus is invisible at {at}"
    unreached = page.js("return [...window.__unreached].filter((e) => e.isConnected).map((e) => e.outerHTML.slice(0, 200))")
    assert unreached == []


@pytest.mark.parametrize(("view", "button", "dialog"), [("Keys", "New key", "New API key"), ("Users", "New user", "New user")])
def test_escape_closes_dialog_and_returns_focus(admin, view, button, dialog):
    opener = admin.get("button", button, admin.view(view))
    admin.js("arguments[0].focus()", opener)
    press(admin, Keys.ENTER)
    element = admin.get("dialog", dialog)
    assert admin.js("return arguments[0].contains(document.activeElement)", element)
    press(admin, Keys.ESCAPE)
    admin.gone("dialog")
    assert admin.js("return document.activeElement === arguments[0]", opener)


def test_skip_link_moves_focus_to_content(admin):
    admin.view("Status")
    admin.js("document.activeElement.blur()")
    press(admin, Keys.TAB, Keys.ENTER)
    assert admin.js("return document.activeElement.id") == "main"


def test_login_works_by_keyboard_alone(page):
    page.open()
    page.get("button", "Log in")
    page.js("document.querySelector('main').focus()")
    press(page, Keys.TAB)
    while page.js("return document.activeElement.name") != "username":
        press(page, Keys.TAB)
    press(page, "admin", Keys.TAB, "admin", Keys.ENTER)
    page.get("navigation", "Main")
