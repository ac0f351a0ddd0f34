"""The CPU time of tasks of a page, from Chromium's tracing. Unlike durations it does not grow while other programs have the CPU."""

import json
import urllib.request
from contextlib import contextmanager

import websocket

CATEGORIES = "devtools.timeline,disabled-by-default-devtools.timeline"
SCRIPTS = ("FunctionCall", "EvaluateScript", "v8.evaluateModule")


@contextmanager
def tracing(driver):
    """Record the events of a block, and append them to the list that the block receives when it ends."""
    address = driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
    with urllib.request.urlopen(f"http://{address}/json/version") as response:
        url = json.load(response)["webSocketDebuggerUrl"]
    connection = websocket.create_connection(url, timeout=120, suppress_origin=True)
    events = []
    try:
        config = {"includedCategories": CATEGORIES.split(","), "recordMode": "recordUntilFull"}
        connection.send(json.dumps({"id": 1, "method": "Tracing.start", "params": {"traceConfig": config}}))
        assert "error" not in json.loads(connection.recv())
        yield events
        connection.send(json.dumps({"id": 2, "method": "Tracing.end"}))
        while True:
            message = json.loads(connection.recv())
            if message.get("method") == "Tracing.dataCollected":
                events += message["params"]["value"]
            elif message.get("method") == "Tracing.tracingComplete":
                assert not message["params"]["dataLossOccurred"]
                break
    finally:
        connection.close()


def tasks_of_scripts(events, origin):
    """Return (milliseconds of CPU, functions) of each task that ran code of the origin on its main thread, longest first.

    Layout and promises count if the code started them; the calls of the test itself do not.
    """
    main = {
        (event["pid"], event["tid"]) for event in events if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    pages = {event["pid"] for event in events if url_of(event).startswith(origin)}
    threads = {}
    for event in events:
        place = event["pid"], event["tid"]
        is_script = event["name"] in SCRIPTS and url_of(event).startswith(origin)
        if "tdur" in event and place in main and event["pid"] in pages and (is_script or event["name"] in ("RunTask", "RunMicrotasks")):
            threads.setdefault(place, []).append(event)
    tasks = []
    for thread in threads.values():
        task_end = code_end = 0
        # An event before those that it contains.
        for event in sorted(thread, key=lambda event: (event["ts"], -event["dur"])):
            if event["name"] == "RunTask":
                if event["ts"] >= task_end:
                    tasks.append([0, []])
                    task_end = event["ts"] + event["dur"]
            elif tasks and code_end <= event["ts"] < task_end:
                code_end = event["ts"] + event["dur"]
                tasks[-1][0] += event["tdur"] / 1000
                tasks[-1][1].append(f"{event.get('args', {}).get('data', {}).get('functionName') or event['name']} {url_of(event)}")
    return sorted((task for task in tasks if task[1]), reverse=True)


def url_of(event):
    return str((event.get("args", {}).get("data") or {}).get("url", ""))
