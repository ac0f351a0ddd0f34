"""A pytest plugin: appends the result of each test to the file MUSE_TEST_REPORT, for tests/run.py.

The reason of a skip begins with the name of the missing requirement (`pytest.skip("systemd: …")`). If MUSE_REQUIRE contains
that name, the test fails instead.
"""

import os

import pytest

REQUIRED = os.environ.get("MUSE_REQUIRE", "").split()


def reason_of(report):
    """Return the reason of a skip."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail") and reason_of(report).split(":")[0] in REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"{reason_of(report)} (MUSE_REQUIRE is {' '.join(REQUIRED)!r})"


def pytest_runtest_logreport(report):
    file = os.environ.get("MUSE_TEST_REPORT")
    # Setup and teardown of a test count only if they fail or skip it.
    if not file or (report.when != "call" and report.passed):
        return
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    outcome = "skipped" if is_skip else "failed" if report.failed else "passed"
    reason = reason_of(report).replace("\n", " ") if is_skip else ""
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(f"{outcome}\t{report.nodeid}\t{reason}\n")
