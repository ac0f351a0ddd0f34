#!/usr/bin/env python3
"""Reports names that standard terms replaced, and test names that are too long.

Prints `file:line: name: use …` for each finding and ends with status 1 if there is one. `make check` runs it.
"""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THIS = Path(__file__).resolve().relative_to(ROOT).as_posix()
SOURCES = (".rs", ".py", ".cpp", ".h", ".proto")
LONGEST_TEST_NAME = 60

# Pattern for the path of a file (`*` also matches `/`), and the replacement.
FILES = {
    "*/answer.rs": "response, or the name of what it answers",
    "auth/*/first_start.rs": "bootstrap",
    "auth/*/maintenance.rs": "admin_ops",
    "auth/*/old_service.rs": "legacy_import",
    "auth/*/old_service/*": "legacy_import",
    "auth/*/passwords/memory.rs": "hash_arena",
    "auth/*/passwords/pool.rs": "hash_pool",
    "auth/*/passwords/stored.rs": "password_hash",
    "auth/*/sessions.rs": "authentication",
    "auth/verifier/*/contact.rs": "sync_state",
    "auth/verifier/*/expiring.rs": "ttl_map",
    "auth/verifier/*/revoked.rs": "revocation_list",
    "auth/verifier/*/verified.rs": "signature_cache",
    "chassis/*/leaks.rs": "panic_hook",
    "chassis/*/lingering.rs": "lingering_close",
    "chassis/*/pace.rs": "io_throttle",
    "chassis/*/polls.rs": "poll_metrics",
    "chassis/*/private.rs": "admin",
    "chassis/*/refusals.rs": "error_mapping, deadline",
    "chassis/*/requests.rs": "request_telemetry",
    "chassis/*/requests/*": "request_telemetry",
    "chassis/*/seldom.rs": "log_throttle",
    "chassis/*src/options.rs": "config",
    "client/*/_flow.py": "_transfer",
    "client/*/_parts.py": "_chunking",
    "embedder/*/batcher/drain.rs": "throughput",
    "embedder/*/batcher/turns.rs": "fair_queue",
    "embedder/*/sum.h": "encoder.h",
    "gateway/*/begun.rs": "peek_body",
    "gateway/*/budget.rs": "retry_budget",
    "gateway/*/call.rs": "retry",
    "gateway/*/concurrency.rs": "adaptive_concurrency",
    "gateway/*/drain.rs": "stream_shutdown",
    "gateway/*/form.rs": "response_format",
    "gateway/*/held.rs": "buffered_body",
    "gateway/*/kept.rs": "replay_body",
    "gateway/*/numbers.rs": "json_vectors",
    "gateway/*/passthrough.rs": "grpc_proxy",
    "gateway/*/quality.rs": "accept",
    "gateway/*/replica.rs": "endpoint",
    "gateway/*/replicas.rs": "balancer",
    "gateway/*/replicas/*": "balancer",
    "gateway/*/store.rs": "memory_budget",
    "proto/*/aside.rs": "run_blocking",
}

# Identifiers that are wrong everywhere: a regular expression of the whole word, the replacement, and the folder.
NAMES = [
    (r"Alike", "LimitKey", ""),
    (r"BadOption", "ConfigError", ""),
    (r"Hashers", "PasswordHashPool", ""),
    (r"InOurTerms", "error_mapping, deadline", ""),
    (r"MOST_KEPT", "MAX_RETAINED_BYTES", ""),
    (r"Observation", "RequestSpan", ""),
    (r"Replicas", "Balancer", ""),
    (r"asked_by", "get_as", ""),
    (r"first_start", "bootstrap", ""),
    (r"give_back_\w+", "trim", ""),
    (r"in_terms_of_input", "with_input_field", ""),
    (r"keep_memory", "configure_allocator", ""),
    (r"keep_silent", "stop_publishing", ""),
    (r"let_go", "discard", "gateway"),
    (r"look_again", "re-resolve", ""),
    (r"note_caller", "record_caller", ""),
    (r"note_step", "record_step", ""),
    (r"old_service", "legacy_import", ""),
    (r"out_of_grace", "grace_expired", ""),
    (r"out_of_reach", "unreachable", ""),
    (r"ran_out_of_time", "is_timeout", ""),
    (r"second_in_command", "deadline", ""),
    (r"suspected", "ejected", "gateway"),
    (r"tell_\w+", "register_metrics, log_…", ""),
    (r"trim_now_and_then", "trim_periodically", ""),
    (r"went_aside", "run_blocking", ""),
    (r"with_any_private", "with_any_admin", ""),
    (r"zero_unless", "mask", ""),
]

# Definitions of types.
TYPES = [
    ("Alone", "SingleRequest", ""),
    ("Cut", "StreamShutdown", "gateway"),
    ("Done", "BatchResult", ""),
    ("Door", "Authenticator, or the standard term", ""),
    ("Heard", "ReceivedMetadata", ""),
    ("Held", "the standard term", ""),
    ("Kept", "RetainedRows, or the standard term", ""),
    ("Kind", "SizeClass", "gateway"),
    ("Observe", "request_telemetry", ""),
    ("Observed", "request_telemetry", ""),
    ("Pages", "admin", ""),
    ("Part", "BatchSlice", ""),
    ("Patience", "AdmissionMode", ""),
    ("Place", "the standard term", ""),
    ("Says", "Behavior", "gateway"),
    ("Side", "TlsConfig", "chassis"),
    ("Store", "memory_budget", "gateway"),
    ("Ticket", "PendingRequest", ""),
]

# Definitions of functions and modules.
FUNCTIONS = [
    ("aside", "run_blocking", ""),
    ("heard", "received", ""),
    ("pad", "round_up_shape", "embedder"),
    ("quality", "accept", "gateway"),
    ("refusal", "error_response, or the name of the error", "gateway"),
    ("says", "respond_with, wait_for_line", ""),
    ("seldom", "log_throttle", ""),
    ("told", "sent", ""),
]

# In C++: definitions and calls of functions, and a constant.
CPP = [
    (r"(?<![.>:\w])(all)\(", "broadcast"),
    (r"(?<![.>:\w])(sum)\(", "reduce_add"),
    (r"\b(KEPT)\b", "WORKSPACE_CACHE_BYTES"),
]

# Names with at most one definition in a folder.
UNIQUE = [
    (r"^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|type) (Encoder)\b", ""),
    (r"^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|type) (Refusal)\b", ""),
    (r"\bfn (drain)\b", "gateway/src"),
    (r"\bfn (forward)\b", "gateway/src"),
]

RULES = (
    [(rf"\b({name})\b", use, folder, SOURCES) for name, use, folder in NAMES]
    + [(rf"\b(?:struct|enum|trait|type|class|union) ({name})\b", use, folder, SOURCES) for name, use, folder in TYPES]
    + [(rf"\b(?:fn|mod|def) ({name})\b", use, folder, SOURCES) for name, use, folder in FUNCTIONS]
    + [(pattern, use, "", (".cpp", ".h")) for pattern, use in CPP]
)
RUST_TEST = re.compile(r"#\[(?:\w+::)?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn (\w+)")
PYTHON_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)


def within(path, folder):
    return not folder or path.startswith(folder + "/")


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def findings(paths):
    """Yield the path, the line and the text of each finding."""
    definitions = {}
    for path in paths:
        for pattern, use in FILES.items():
            if fnmatch.fnmatchcase(path, pattern):
                yield path, 1, f"{pattern}: use {use}"
        if not path.endswith(SOURCES) or path == THIS:
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        for pattern, use, folder, suffixes in RULES:
            if within(path, folder) and path.endswith(suffixes):
                for match in re.finditer(pattern, text):
                    yield path, line_of(text, match.start(1)), f"{match[1]}: use {use}"
        for pattern, folder in UNIQUE:
            if within(path, folder) and path.endswith(".rs"):
                for match in re.finditer(pattern, text, re.MULTILINE):
                    definitions.setdefault((match[1], folder), []).append((path, line_of(text, match.start(1))))
        for match in (RUST_TEST if path.endswith(".rs") else PYTHON_TEST).finditer(text):
            if len(match[1]) > LONGEST_TEST_NAME:
                yield path, line_of(text, match.start(1)), f"{match[1]}: {len(match[1])} characters, at most {LONGEST_TEST_NAME}"
    for (name, _), places in definitions.items():
        if len(places) > 1:
            yield from ((*place, f"{name}: defined {len(places)} times, use a different name for each") for place in places)


def main():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [path for path in listed.split("\0") if path and (ROOT / path).is_file()]
    found = sorted(findings(paths))
    for path, line, text in found:
        print(f"{path}:{line}: {text}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
