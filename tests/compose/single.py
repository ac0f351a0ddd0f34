"""The profile `single`: requests of a user, persistence over a restart, and confinement of the containers."""

import json
import os

import httpx
import numpy as np
from engine import ROOT, docker, eventually, say

GOLDEN = os.path.join(ROOT, "models/golden")
NO_CAPABILITIES = "0" * 16


def golden(count):
    """The first sentences of the golden data, and their reference vectors."""
    with open(f"{GOLDEN}/sentences.jsonl", encoding="utf-8") as file:
        sentences = [json.loads(line)["text"] for line, _ in zip(file, range(count))]
    return sentences, np.load(f"{GOLDEN}/embeddings.npy", mmap_mode="r")[:count]


def check_vectors(stack, password, **client):
    sentences, reference = golden(32)
    with stack.client(password, **client) as muse:
        vectors = muse.embed(sentences)
    cosines = np.sum(vectors * reference, axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(reference, axis=1)
    assert cosines.min() > 0.999999, cosines.min()
    return vectors


def tokenize(stack, token):
    response = httpx.get(f"{stack.url}/tokenize", params={"sentence": "Hola"}, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    return response.status_code


def check_confinement(stack):
    """Only the gateway publishes a port; no process is root, can become root, or can write to its root file system."""
    for service, container in stack.containers().items():
        published = [port for ports in (container["NetworkSettings"]["Ports"] or {}).values() for port in ports or []]
        assert bool(published) == (service in ("gateway", "balancer")), (service, published)
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] and host["Memory"] > 0 and host["PidsLimit"] > 0, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        with open(f"/proc/{container['State']['Pid']}/status", encoding="utf-8") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert "0" not in status["Uid"].split(), (service, status["Uid"])
        assert status["CapEff"] == status["CapBnd"] == NO_CAPABILITIES and status["NoNewPrivs"] == "1", service
        if service.split("-")[0] in ("auth", "embedder", "postgres"):
            networks = container["NetworkSettings"]["Networks"]
            assert [docker("network", "inspect", "--format", "{{.Internal}}", network) for network in networks] == ["true"], service


def run(stack, password, versions):
    error = stack.error_without("ADMIN_PASSWORD")
    assert "ADMIN_PASSWORD has no default" in error, error
    stack.up()
    check_confinement(stack)

    first = check_vectors(stack, password)
    assert np.array_equal(first, check_vectors(stack, password, grpc=True))
    stack.compose("exec", "-T", "auth", "/usr/local/bin/muse-auth", "user", "add", "ines", given="correct horse battery\n")
    revoked, valid = (stack.login("correct horse battery", "ines").json()["access_token"] for _ in range(2))
    assert (tokenize(stack, revoked), tokenize(stack, valid)) == (200, 200)
    httpx.post(f"{stack.url}/logout/access", headers={"Authorization": f"Bearer {revoked}"}, timeout=30).raise_for_status()
    assert tokenize(stack, revoked) == 401

    say("removing everything except the volumes, and starting again")
    before = {service: container["Id"] for service, container in stack.containers().items()}
    stack.compose("down")
    stack.up()
    after = {service: container["Id"] for service, container in stack.containers().items()}
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())
    eventually(lambda: tokenize(stack, valid) == 200, "an earlier token is valid")
    assert tokenize(stack, revoked) == 401, "a revocation was lost"
    assert stack.login("correct horse battery", "ines").status_code == 200, "a user was lost"
    assert stack.login("wrong").status_code == 401
    assert np.array_equal(first, check_vectors(stack, password))

    say("stopping")
    stack.compose("stop")
    for service, identity in after.items():
        state = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", identity)
        assert state == "0 false", (service, state)
