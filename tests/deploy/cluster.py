"""The objects that `kubectl kustomize` renders, and queries on them."""

import itertools
import os
import pathlib
import re
import subprocess

import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "deploy/kubernetes"
COMPONENTS = ("postgres", "gpu", "autoscale")
WORKLOADS = ("Deployment", "StatefulSet")
PROGRAMS = ("muse-auth", "muse-embedder", "muse-gateway")


def options(program):
    """Returns the environment variables of a program's options with their defaults (None if it is not a number)."""
    help_text = subprocess.run([CHECKOUT / "target/release" / program, "--help"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"\[env: (\w+)[^\]]*\](?:\s*\[default: (\d+)\])?", help_text)
    return {name: int(default) if default else None for name, default in found}


class Cluster:
    """The objects that one kustomization renders."""

    def __init__(self, folder):
        kubectl = os.environ["KUBECTL"]
        self.text = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True).stdout
        self.objects = list(yaml.safe_load_all(self.text))

    def of(self, *kinds):
        return [thing for thing in self.objects if thing["kind"] in kinds]

    def named(self, kind, name):
        (found,) = [thing for thing in self.of(kind) if thing["metadata"]["name"] == name]
        return found

    def workload(self, name):
        (found,) = [thing for thing in self.of(*WORKLOADS) if thing["metadata"]["name"] == name]
        return found

    def pods(self):
        """The pod of each workload, by the name of the workload."""
        return {thing["metadata"]["name"]: Pod(thing, self) for thing in self.of(*WORKLOADS)}

    def selected(self, selector):
        """The names of the workloads whose pods a label selector matches."""
        return {name for name, pod in self.pods().items() if matches(selector, pod.labels)}


class Pod:
    """The pod template of a workload, which has one container."""

    def __init__(self, workload, cluster):
        template = workload["spec"]["template"]
        self.labels = template["metadata"]["labels"]
        self.spec = template["spec"]
        (self.container,) = self.spec["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.volumes = {volume["name"] for volume in self.spec.get("volumes", [])}
        self.volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        self.environment = {}
        for source in self.container.get("envFrom", []):
            self.environment |= cluster.named("ConfigMap", source["configMapRef"]["name"])["data"]
        # Values from Secrets are None. A value may refer to earlier variables as $(NAME).
        for variable in self.container["env"]:
            value = variable.get("value")
            if value is not None:
                value = re.sub(r"\$\((\w+)\)", lambda found: self.environment[found[1]], value)
            self.environment[variable["name"]] = value

    def port(self, port):
        """The number of a port that is given by number or name."""
        return self.ports[port] if isinstance(port, str) else port

    def secrets(self):
        """The names of the Secrets that the pod uses."""
        for volume in self.spec.get("volumes", []):
            if "secret" in volume:
                yield volume["secret"]["secretName"]
        for variable in self.container["env"]:
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield variable["valueFrom"]["secretKeyRef"]["name"]


def matches(selector, labels):
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In", "no other operator is used"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def combinations():
    """Every combination of components."""
    for number in range(len(COMPONENTS) + 1):
        yield from itertools.combinations(COMPONENTS, number)


def kustomization(components, folder, **fields):
    """Writes a kustomization with these components to `folder`, as in the guide."""
    below = pathlib.Path(os.path.relpath(FOLDER, folder))
    content = {"resources": [str(below / "base")], "components": [str(below / name) for name in components], **fields}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder
