"""Compares deploy/observe with the metrics of running services.

usage: observe.py OBSERVE_DIR PAGES_DIR

PAGES_DIR contains /metrics of each service after some requests, as JOB.prom. Reports each metric that violates Prometheus'
conventions, and each selector of a rule or of the dashboard that would return no series.
"""

import collections
import json
import pathlib
import re
import sys

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

# Series that Prometheus adds for each target.
OF_PROMETHEUS = {"up"}
OF_TARGET = {"job", "instance"}
UNITS = ("_seconds", "_bytes", "_tokens", "_ratio", "_info")
# Gauges that count the thing in their name. The last four are names of Prometheus' client libraries.
WITHOUT_UNIT = {
    "muse_ready",
    "muse_embedders_known",
    "muse_embedders_serving",
    "muse_embedders_unused",
    "muse_usage_pending",
    "muse_requests_in_flight",
    "muse_password_hash_queue_length",
    "muse_password_hash_queue_capacity",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}

# Statuses need not have occurred in the test.
STATUSES = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
    *map(str, range(200, 600)),
}

Series = collections.namedtuple("Series", ["name", "labels"])


def exported(pages):
    """Returns the metric families of each page, and all series with the labels of their targets."""
    families, series = {}, []
    for page in sorted(pages.glob("*.prom")):
        families[page.stem] = list(text_string_to_metric_families(page.read_text()))
        for family in families[page.stem]:
            for sample in family.samples:
                series.append(Series(sample.name, {**sample.labels, "job": page.stem, "instance": "any"}))
    for job in families:
        series += [Series(name, {"job": job, "instance": "any"}) for name in OF_PROMETHEUS]
    return families, series


def unconventional(page, family):
    """Yields the violated conventions of a metric."""
    # The parser strips the suffix of counters.
    name = family.name + ("_total" if family.type == "counter" else "")
    if not re.fullmatch(r"(muse|process)_[a-z0-9_]+", name):
        yield "is not named muse_… in lower case"
    if len(family.documentation) < 10 or not family.documentation.endswith("."):
        yield "has no HELP that is a sentence"
    if family.type not in ("counter", "gauge", "histogram"):
        yield f"has the TYPE {family.type}"
    if family.type != "counter" and name.endswith(("_total", "_count", "_sum", "_bucket")):
        yield f"is a {family.type} with the name of something else"
    if family.type == "histogram" and not name.endswith(UNITS):
        yield "is a histogram without a unit"
    if family.type == "gauge" and not name.endswith(UNITS) and name not in WITHOUT_UNIT:
        yield "is a gauge without a unit"
    if re.search(r"milli|micro|_ms\b|_us\b|minutes|kib|_kb|percent", name):
        yield "is not in base units"
    if not family.samples:
        yield "has no value"
    values = collections.defaultdict(set)
    for sample in family.samples:
        for label, value in sample.labels.items():
            values[label].add(value)
    for label, of_label in values.items():
        if label in OF_TARGET:
            yield f"has the target label {label}"
        if len(of_label) > 40:
            yield f"has {len(of_label)} values of {label}"
    for sample in family.samples:
        if sample.value != sample.value or (sample.name.endswith("_total") and sample.value < 0):
            yield f"has the value {sample.value}"


def matches(matcher, value):
    equal, unequal, like = promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual, promql_parser.MatchOp.Re
    is_it = value == matcher.value if matcher.op in (equal, unequal) else bool(re.fullmatch(matcher.value, value))
    return is_it == (matcher.op in (equal, like))


def alternatives(matcher):
    """Splits a matcher of `a|b`: each alternative must match."""
    return matcher.value.split("|") if matcher.op == promql_parser.MatchOp.Re else [matcher.value]


def unmatched(node, series, labels):
    """Yields the parts of a query that match no series. Adds the labels of matched series to `labels`."""
    if isinstance(node, promql_parser.VectorSelector):
        named = [one for one in series if one.name == node.name]
        if not named:
            yield f"there is no {node.name}"
        for one in named:
            labels.update(one.labels)
        matchers = node.matchers.matchers
        for matcher in matchers:
            if named and not any(matcher.name in one.labels for one in named):
                yield f"{node.name} has no label {matcher.name}"
                continue
            there = {one.labels.get(matcher.name, "") for one in named}
            if matcher.name == "status":
                there |= STATUSES
            for value in alternatives(matcher):
                if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re) and not any(
                    re.fullmatch(value, other) for other in there
                ):
                    yield f"{node.name} has no {matcher.name} {value!r}, only {sorted(there)}"
        if named and not any(all(matches(m, one.labels.get(m.name, "")) for m in matchers) for one in named):
            yield f"no series matches {node}"
        return
    for part in parts(node):
        yield from unmatched(part, series, labels)


def parts(node):
    """The subexpressions of an expression."""
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    inside = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")]
    return [part for part in inside if part is not None] + list(getattr(node, "args", None) or [])


def grouped(node):
    """The labels in the grouping and matching modifiers of a query."""
    modifier = getattr(node, "modifier", None)
    if isinstance(modifier, promql_parser.AggModifier):
        yield from modifier.labels
    elif isinstance(modifier, promql_parser.BinModifier):
        yield from (modifier.matching.labels if modifier.matching else [])
        yield from modifier.group_labels or []
    for part in parts(node):
        yield from grouped(part)


def queries(observe):
    """Yields the location and text of each query."""
    for group in yaml.safe_load((observe / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for file in sorted(observe.glob("grafana/dashboards/*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def dashboards(observe):
    """Yields errors in the layout and data sources of the dashboards."""
    sources = yaml.safe_load((observe / "grafana/datasources/prometheus.yml").read_text())["datasources"]
    known = {source["uid"] for source in sources}
    for file in sorted(observe.glob("grafana/dashboards/*.json")):
        panels = json.loads(file.read_text())["panels"]
        if len({panel["id"] for panel in panels}) < len(panels):
            yield f"{file.name}: two panels have one id"
        cells = collections.Counter()
        for panel in panels:
            place = panel["gridPos"]
            cells.update((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"]))
            for target in [panel, *panel.get("targets", [])] if panel["type"] != "row" else []:
                if target["datasource"]["uid"] not in known:
                    yield f"{file.name}: {panel['title']}: there is no source {target['datasource']['uid']}"
        if any(count > 1 for count in cells.values()) or any(x >= 24 for x, _ in cells):
            yield f"{file.name}: panels overlap or exceed the page"


def errors(observe, pages):
    families, series = exported(pages)
    for page, of_page in families.items():
        for family in of_page:
            yield from (f"{page}: {family.name} {what}" for what in unconventional(page, family))
    for place, query in queries(observe):
        try:
            parsed, labels = promql_parser.parse(query), set()
        except ValueError as refused:
            yield f"{place}: {refused}"
            continue
        yield from (f"{place}: {what}" for what in unmatched(parsed, series, labels))
        yield from (f"{place}: no series has the label {label}" for label in grouped(parsed) if label not in labels)
    yield from dashboards(observe)


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 64
    found = list(errors(*map(pathlib.Path, sys.argv[1:])))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
