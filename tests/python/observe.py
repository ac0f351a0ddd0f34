"""Compares deploy/observe with what running services export.

usage: observe.py OBSERVE_DIR PAGES_DIR

PAGES_DIR holds what /metrics of each service said after some use, as JOB.prom. Names each metric that does not follow
Prometheus' conventions, and each part of a query, of the rules or of the dashboard, that would find nothing.
"""

import collections
import json
import pathlib
import re
import sys

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

# Prometheus makes these itself: one for each target, with nothing but the labels of a target.
OF_PROMETHEUS = {"up"}
OF_TARGET = {"job", "instance"}
UNITS = ("_seconds", "_bytes", "_tokens", "_ratio", "_info")
# Units of their own: what is counted is in the name. The last four are the names of Prometheus' client libraries.
WITHOUT_UNIT = {
    "muse_ready",
    "muse_embedders_known",
    "muse_embedders_serving",
    "muse_requests_in_flight",
    "muse_password_hash_queue_length",
    "muse_password_hash_queue_capacity",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}

# A status need not have occurred, as long as it is one.
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
    """The families of each page, and the series of all of them with the labels of their targets."""
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
    """What is wrong with a metric."""
    # The parser takes the ending off a counter's name.
    name = family.name + ("_total" if family.type == "counter" else "")
    if not re.fullmatch(r"(muse|process)_[a-z0-9_]+", name):
        yield "is not named muse_… in small letters"
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
            yield f"has the label {label}, which is the target's"
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
    """A matcher of `a|b` as one of `a` and one of `b`: each of them has to be there."""
    return matcher.value.split("|") if matcher.op == promql_parser.MatchOp.Re else [matcher.value]


def nothing(node, series, labels):
    """What of a query would find nothing. Adds the labels of all that it finds to `labels`."""
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
            yield f"nothing is {node}"
        return
    for part in parts(node):
        yield from nothing(part, series, labels)


def parts(node):
    """The expressions inside of one."""
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    inside = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")]
    return [part for part in inside if part is not None] + list(getattr(node, "args", None) or [])


def grouped(node):
    """The labels by which a query groups or joins."""
    modifier = getattr(node, "modifier", None)
    if isinstance(modifier, promql_parser.AggModifier):
        yield from modifier.labels
    elif isinstance(modifier, promql_parser.BinModifier):
        yield from (modifier.matching.labels if modifier.matching else [])
        yield from modifier.group_labels or []
    for part in parts(node):
        yield from grouped(part)


def queries(observe):
    """Where each query is, and the query."""
    for group in yaml.safe_load((observe / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for file in sorted(observe.glob("grafana/dashboards/*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def dashboards(observe):
    """What is wrong with the dashboards themselves."""
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
            yield f"{file.name}: the panels lie on each other, or beside the page"


def complaints(observe, pages):
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
        yield from (f"{place}: {what}" for what in nothing(parsed, series, labels))
        yield from (f"{place}: nothing has the label {label}" for label in grouped(parsed) if label not in labels)
    yield from dashboards(observe)


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 64
    found = list(complaints(*map(pathlib.Path, sys.argv[1:])))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
