"""Measures onnxruntime with the int8 ONNX export, tokenizer included, for tests/bench/service/peer.rs.

usage: onnxruntime_peer.py ONNX THREADS

Reads a line of JSON, the list of sentences, and prints the version. Each further line is a duration in seconds: the
program runs the sentences in batches of 32 for that time, and prints the rate.
"""

import json
import sys
import time

import numpy
import onnxruntime
from onnxruntime_extensions import get_library_path

BATCH = 32


def main():
    onnx, threads = sys.argv[1], int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads spin between batches, but not during measurements of the service.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.register_custom_ops_library(get_library_path())
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def respond(message):
        print(json.dumps(message), flush=True)

    sentences = json.loads(sys.stdin.readline())
    batches = [numpy.array(sentences[start : start + BATCH], dtype=object) for start in range(0, len(sentences) - BATCH + 1, BATCH)]
    for batch in batches:
        session.run(None, {name: batch})
    respond({"version": onnxruntime.__version__})

    for line in sys.stdin:
        duration = float(line)
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < duration:
            session.run(None, {name: batches[done // BATCH % len(batches)]})
            done += BATCH
        respond({"sentences_per_second": done / (time.perf_counter() - started)})


if __name__ == "__main__":
    main()
