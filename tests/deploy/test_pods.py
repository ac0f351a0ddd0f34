"""Runs the rendered pods as processes, with secrets from the commands of the guide."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from cluster import FOLDER, PROGRAMS, Cluster

PASSWORD = "a long password"
USERS_CERTIFICATE = """
openssl req -x509 -newkey ed25519 -noenc -subj /CN=authority -days 2 -keyout authority.key -out authority.crt
openssl req -newkey ed25519 -noenc -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout users.key -out users.csr
openssl x509 -req -in users.csr -CA authority.crt -CAkey authority.key -copy_extensions copy -days 2 -out leaf.crt
cat leaf.crt authority.crt > users.crt
"""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """The secrets that the commands of the guide create, by name."""
    folder = tmp_path_factory.mktemp("secrets")
    kubectl = folder / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec "{os.environ["KUBECTL"]}" "$@" --dry-run=client --output=json >> "$MADE"\n')
    kubectl.chmod(0o755)
    # Input of the guide: the URL of the database.
    (folder / "url").write_text("postgres://muse@db.example.org/muse")
    subprocess.run(["bash", "-euc", USERS_CERTIFICATE], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    section = (FOLDER / "README.md").read_text().split("## Secrets")[1].split("\n## ")[0]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "MADE": str(folder / "made")}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, check=True, stderr=subprocess.DEVNULL)
    decoder, text, made = json.JSONDecoder(), (folder / "made").read_text(), {}
    while text.strip():
        thing, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        if thing["kind"] == "Secret":
            data = {key: base64.b64decode(value).decode() for key, value in thing["data"].items()}
            made[thing["metadata"]["name"]] = data
    return made


def description(secrets):
    cluster = Cluster(FOLDER / "base")
    pods = {}
    for name, pod in cluster.pods().items():
        secret_of = {volume["name"]: volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume}
        places = {mount["name"]: mount["mountPath"] for mount in pod.container["volumeMounts"]}
        pods[name] = {
            "environment": pod.environment,
            "mounts": {places[volume]: secrets[secret] for volume, secret in secret_of.items()},
            "data": [place for volume, place in places.items() if volume not in secret_of],
            "user": pod.spec["securityContext"]["runAsUser"],
            "grace": pod.spec["terminationGracePeriodSeconds"],
            "names": PROGRAMS,
            "probes": {
                probe: (pod.container[probe]["httpGet"]["path"], pod.port(pod.container[probe]["httpGet"]["port"]))
                for probe in ("startupProbe", "livenessProbe", "readinessProbe")
            },
        }
    return {
        "pods": pods,
        "password": PASSWORD,
        # The last certificate of the chain.
        "authority": "-----BEGIN" + secrets["muse-users-tls"]["tls.crt"].rpartition("-----BEGIN")[2],
        "metrics": re.findall(r"seriesQuery: (\w+)", (FOLDER / "autoscale/prometheus-adapter.yaml").read_text()),
    }


def test_commands_of_the_guide_create_every_secret(secrets):
    needed = {secret for pod in Cluster(FOLDER / "example").pods().values() for secret in pod.secrets()}
    assert secrets.keys() == needed
    assert secrets["muse-auth"]["admin-password"] == PASSWORD
    assert secrets["muse-postgres"]["url"].startswith("postgres://")


@pytest.mark.skipif(os.geteuid() != 0, reason="root: needs root for a network namespace and a read-only root file system")
def test_programs_run_with_the_settings_of_the_pods(installed, secrets, tmp_path):
    (tmp_path / "description").write_text(json.dumps(description(secrets)))
    script = pathlib.Path(__file__).with_name("in_pods.py")
    ended = subprocess.run(["unshare", "--net", "--mount", sys.executable, script, installed, tmp_path / "description"], timeout=300)
    assert ended.returncode == 0
