"""Screenshots of each view, and its layout on narrow screens."""

import base64

import pytest
from views import DIALOGS, VIEWS

WIDTHS = (390, 820, 1440)
HIGHEST = 4000


def screenshot(page, width, file):
    page.js("scrollTo(0, 0)")
    height = page.cdp("Page.getLayoutMetrics")["cssContentSize"]["height"]
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, HIGHEST), "scale": 1}
    image = page.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    file.write_bytes(base64.b64decode(image["data"]))


def wait_for_frames(page):
    """Wait until the browser has painted the current style and size."""
    page.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def assert_no_overflow(page, width):
    page.size(width)
    wait_for_frames(page)
    wide = page.js("return document.documentElement.scrollWidth")
    assert wide <= width, [element.text[:80] for element in overflowing(page, width)]


def overflowing(page, width):
    return page.js(
        "return [...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > arguments[0] + 1)", width
    )


@pytest.mark.parametrize("name", [*VIEWS, *DIALOGS])
def test_view_fits_every_width_and_theme(page, content, screenshots, name):
    page.size(WIDTHS[0])
    {**VIEWS, **DIALOGS}[name](page)
    for theme in ("light", "dark"):
        page.theme(theme)
        wait_for_frames(page)
        for width in WIDTHS:
            assert_no_overflow(page, width)
            if screenshots is not None:
                screenshot(page, width, screenshots / f"{name}-{width}-{theme}.png")
    assert_no_overflow(page, 320)


def test_colours_follow_the_theme(page):
    page.open()
    page.get("button", "Log in")
    lightness = []
    for theme in ("light", "dark"):
        page.theme(theme)
        colour = page.js("return getComputedStyle(document.body).backgroundColor")
        lightness.append(sum(map(int, colour[4:-1].split(","))))
    assert lightness[0] > 600 and lightness[1] < 200
