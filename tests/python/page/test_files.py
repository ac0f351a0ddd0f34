"""The files of the page: size, and what their text must not contain. Without a browser."""

import re
from pathlib import Path

WEB = Path(__file__).parents[3] / "gateway/web"
FILES = [path for path in WEB.rglob("*") if path.is_file()]
HTML_FROM_TEXT = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|setHTMLUnsafe|parseFromString|document\.write(ln)?|eval|new Function)\b"
)
STORAGE = re.compile(r"\b(localStorage|sessionStorage|indexedDB|document\.cookie|caches\.)")
# Namespaces and examples of addresses are no requests.
ALLOWED_URL = re.compile(r"https?://(www\.w3\.org/|localhost\b|127\.0\.0\.1\b)")


def findings(pattern, suffixes=(".js", ".html", ".css")):
    for path in FILES:
        if path.suffix in suffixes:
            for match in pattern.finditer(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(WEB)}: {match.group()}"


def test_files_are_small():
    sizes = {str(path.relative_to(WEB)): path.stat().st_size for path in FILES}
    assert 10_000 < sum(sizes.values()) < 150_000, sizes


def test_files_are_of_known_types():
    assert {path.suffix for path in FILES} <= {".html", ".css", ".js"}


def test_scripts_create_no_html_from_text():
    assert list(findings(HTML_FROM_TEXT)) == []


def test_scripts_store_nothing():
    assert list(findings(STORAGE)) == []


def test_html_has_no_inline_script_or_style():
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html) == []


def test_no_url_leaves_the_origin_or_the_prefix():
    assert [finding for finding in findings(re.compile(r"https?://[^\s'\"`]*")) if not ALLOWED_URL.search(finding)] == []
    assert list(findings(re.compile(r"""(?:src|href|fetch\(|call\(|url\()=?["'(]?/[a-z]"""))) == []
