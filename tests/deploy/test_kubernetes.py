"""deploy/kubernetes with every combination of components: schemas, and errors that a schema does not detect."""

import copy
import os
import re

import kubernetes_validate
import pytest
import yaml
from cluster import CHECKOUT, COMPONENTS, FOLDER, PROGRAMS, Cluster, combinations, kustomization, matches, options

# The oldest release with all used features, and the newest with published schemas.
RELEASES = ("1.29", "1.37")
UNITS = {"m": 0.001, "": 1, "Mi": 2**20, "Gi": 2**30}


@pytest.fixture(scope="session", params=list(combinations()), ids=lambda chosen: "+".join(chosen) or "base")
def chosen(request):
    return request.param


@pytest.fixture(scope="session")
def cluster(chosen, tmp_path_factory):
    return Cluster(kustomization(chosen, tmp_path_factory.mktemp("kustomization")))


@pytest.fixture(scope="session")
def version():
    return re.search(r'^version = "(.+)"$', (CHECKOUT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def quantity(text):
    number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]*)", str(text)).groups()
    return int(number) * UNITS[unit]


@pytest.mark.parametrize("release", RELEASES)
def test_objects_conform_to_the_kubernetes_schemas(cluster, release):
    for thing in cluster.objects:
        kubernetes_validate.validate(thing, release, strict=True)


def test_unknown_field_violates_the_schema(cluster):
    service = copy.deepcopy(cluster.named("Service", "muse-auth"))
    service["spec"]["ports"][0]["targetport"] = service["spec"]["ports"][0].pop("targetPort")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, RELEASES[-1], strict=True)


def test_example_renders():
    assert {thing["metadata"]["name"] for thing in Cluster(FOLDER / "example").of("Deployment")} < set(PROGRAMS)


def test_settings_of_the_guide_reach_the_pods(tmp_path):
    section = (FOLDER / "README.md").read_text().split("## Start")[1].split("\n## ")[0]
    fields = yaml.safe_load(re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1])
    environment = Cluster(kustomization((), tmp_path, **fields)).pods()["muse-embedder"].environment
    assert (environment["MUSE_PRECISION"], environment["LOG_FORMAT"]) == ("bf16", "json")


def test_every_component_is_tested():
    folders = {path.parent.name for path in FOLDER.glob("*/kustomization.yaml")}
    assert folders == {"base", "example", *COMPONENTS}


def test_every_service_has_a_workload(cluster):
    assert set(cluster.pods()) == set(PROGRAMS)
    for name, pod in cluster.pods().items():
        assert cluster.selected(cluster.workload(name)["spec"]["selector"]) == {name}
        for constraint in pod.spec["topologySpreadConstraints"]:
            assert cluster.selected(constraint["labelSelector"]) == {name}


def test_image_tags_are_those_of_this_version(cluster, chosen, version):
    for name, pod in cluster.pods().items():
        cuda = "-cuda" if name == "muse-embedder" and "gpu" in chosen else ""
        assert pod.container["image"] == f"{name}:{version}{cuda}"


def test_pods_conform_to_the_restricted_profile(cluster):
    (namespace,) = cluster.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in cluster.pods().items():
        assert pod.spec["automountServiceAccountToken"] is False
        assert cluster.named("ServiceAccount", pod.spec["serviceAccountName"])["automountServiceAccountToken"] is False
        # Otherwise Kubernetes adds variables such as MUSE_AUTH_PORT to those of the programs.
        assert pod.spec["enableServiceLinks"] is False
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_resources_have_requests_and_limits(cluster, chosen):
    for name, pod in cluster.pods().items():
        requests, limits = pod.container["resources"]["requests"], pod.container["resources"]["limits"]
        for resource in ("cpu", "memory"):
            assert 0 < quantity(requests[resource]) <= quantity(limits[resource]), (name, resource)
        assert ("nvidia.com/gpu" in limits) == (name == "muse-embedder" and "gpu" in chosen)


def test_variables_are_options_of_the_program(cluster):
    for name, pod in cluster.pods().items():
        # TOKIO_WORKER_THREADS belongs to the async runtime; the other two are parts of the URLs.
        others = {"TOKIO_WORKER_THREADS", "AUTH_SERVICE", "EMBEDDER_SERVICE"}
        assert pod.environment.keys() - others <= options(name).keys(), name


def test_probes_use_the_admin_port(cluster):
    for name, pod in cluster.pods().items():
        prefix = name.removeprefix("muse-").upper()
        assert pod.environment[f"{prefix}_PRIVATE_LISTEN"] == f"0.0.0.0:{pod.ports['admin']}"
        (public,) = pod.ports.keys() - {"admin"}
        assert pod.environment[f"{prefix}_LISTEN"] == f"0.0.0.0:{pod.ports[public]}"
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert pod.container[probe]["httpGet"] == {"path": path, "port": "admin"}, (name, probe)


def test_termination_grace_exceeds_shutdown_delay_and_grace(cluster):
    for name, pod in cluster.pods().items():
        taken = int(pod.environment["SHUTDOWN_DELAY"]) + int(pod.environment["SHUTDOWN_GRACE"])
        assert pod.spec["terminationGracePeriodSeconds"] >= taken + 5, name


def test_every_mount_has_a_volume(cluster):
    for name, pod in cluster.pods().items():
        assert {mount["name"] for mount in pod.container["volumeMounts"]} == pod.volumes, name


def test_urls_contain_services_and_their_ports(cluster):
    for name, pod in cluster.pods().items():
        for variable, target in (("AUTH_URL", "muse-auth"), ("EMBEDDER_URL", "muse-embedder")):
            if variable not in pod.environment:
                continue
            service = cluster.named("Service", target)
            assert pod.environment[variable] == f"https://{target}:{service['spec']['ports'][0]['port']}", name


def test_services_select_pods_and_their_ports(cluster):
    for service in cluster.of("Service"):
        name = service["metadata"]["name"]
        assert cluster.selected({"matchLabels": service["spec"]["selector"]}) == {name}
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] in cluster.pods()[name].ports
        assert port["targetPort"] != "admin"
    # Headless: the gateway balances over the addresses of the pods.
    assert cluster.named("Service", "muse-embedder")["spec"]["clusterIP"] == "None"


def test_disruption_budgets_allow_node_drains(cluster):
    for budget in cluster.of("PodDisruptionBudget"):
        (name,) = cluster.selected(budget["spec"]["selector"])
        assert budget["spec"]["maxUnavailable"] == 1
        # A budget for a single pod protects nothing.
        assert cluster.workload(name)["spec"].get("replicas", 2) >= 2, name


def test_sqlite_has_one_auth_replica_and_postgres_several(cluster, chosen):
    auth = cluster.workload("muse-auth")
    url = cluster.pods()["muse-auth"].environment["DATABASE_URL"]
    if "postgres" in chosen:
        assert auth["spec"]["replicas"] >= 2 and url is None and "volumeClaimTemplates" not in auth["spec"]
    else:
        (claim,) = auth["spec"]["volumeClaimTemplates"]
        (mount,) = [
            mount["mountPath"]
            for mount in cluster.pods()["muse-auth"].container["volumeMounts"]
            if mount["name"] == claim["metadata"]["name"]
        ]
        assert auth["spec"]["replicas"] == 1 and url.startswith(f"sqlite://{mount}/")
        assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_autoscaled_workloads_set_no_replicas(cluster, chosen):
    autoscalers = cluster.of("HorizontalPodAutoscaler")
    assert len(autoscalers) == (2 if "autoscale" in chosen else 0)
    for autoscaler in autoscalers:
        target = autoscaler["spec"]["scaleTargetRef"]
        workload = cluster.named(target["kind"], target["name"])
        assert "replicas" not in workload["spec"] and workload["apiVersion"] == target["apiVersion"]
        assert autoscaler["metadata"]["namespace"] == workload["metadata"]["namespace"]


def test_adapter_rule_and_prometheus_job_match_the_autoscaler():
    cluster = Cluster(FOLDER / "example")
    autoscaler = cluster.named("HorizontalPodAutoscaler", "muse-embedder")
    (metric,) = [metric["pods"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"] if metric["type"] == "Pods"]
    (rule,) = yaml.safe_load((FOLDER / "autoscale/prometheus-adapter.yaml").read_text())["rules"]
    assert rule["seriesQuery"].startswith(metric + "{")
    (job,) = yaml.safe_load((FOLDER / "autoscale/prometheus.yaml").read_text())["scrape_configs"]
    written = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    assert set(rule["resources"]["overrides"]) <= written
    (naming,) = [rule["regex"] for rule in job["relabel_configs"] if rule.get("target_label") == "job"]
    observed = yaml.safe_load((CHECKOUT / "deploy/observe/prometheus.yml").read_text())["scrape_configs"]
    assert {re.fullmatch(naming, name)[1] for name in PROGRAMS} == {job["job_name"] for job in observed}
    (port,) = [rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"]
    assert all(port in pod.ports for pod in cluster.pods().values())


def test_secrets_are_documented_and_not_included(cluster):
    assert not cluster.of("Secret")
    guide = (FOLDER / "README.md").read_text()
    for pod in cluster.pods().values():
        for secret in pod.secrets():
            assert f" {secret} " in guide, f"the guide does not create {secret}"


def test_network_policies_allow_required_connections_only(cluster, chosen):
    prometheus = {"app.kubernetes.io/name": "prometheus"}
    sources = {"outside": None, "prometheus": prometheus} | {name: pod.labels for name, pod in cluster.pods().items()}
    reached = {
        (source, name, port)
        for source, labels in sources.items()
        for name, pod in cluster.pods().items()
        for port in pod.ports.values()
        if receives(cluster, pod, labels, port) and (labels in (None, prometheus) or sends(cluster, labels, pod, port))
    }
    users = {(source, "muse-gateway", 5000) for source in ("outside", "prometheus")}
    scrapes = {("prometheus", name, pod.ports["admin"]) for name, pod in cluster.pods().items()}
    calls = {
        ("muse-gateway", "muse-auth", 5001),
        ("muse-gateway", "muse-embedder", 5002),
        ("muse-embedder", "muse-auth", 5001),
    }
    assert reached == users | scrapes | calls
    # Egress out of the cluster is allowed only to the port of Postgres, and only from the auth service.
    for name, pod in cluster.pods().items():
        outside = {
            port["port"]
            for policy in policies(cluster, pod.labels, "Egress")
            for rule in policy.get("egress", [])
            if "to" not in rule
            for port in rule["ports"]
        }
        assert outside == ({5432} if name == "muse-auth" and "postgres" in chosen else set())


@pytest.fixture(scope="session", params=[False, True], ids=["from-base", "from-overlay"])
def staging(request, chosen, tmp_path_factory):
    """A second stack in the same namespace, from the commands of the guide: of the base, or of an overlay of it."""
    section = (FOLDER / "README.md").read_text().split("## Two stacks in one namespace")[1].split("\n## ")[0]
    fields = yaml.safe_load(re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1])
    if not request.param:
        return Cluster(kustomization(chosen, tmp_path_factory.mktemp("staging"), **fields))
    first = kustomization(chosen, tmp_path_factory.mktemp("first"))
    overlay = tmp_path_factory.mktemp("overlay")
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [os.path.relpath(first, overlay)], **fields}))
    return Cluster(overlay)


def test_name_prefix_applies_to_urls_and_secrets(cluster, staging):
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in cluster.objects if thing["kind"] != "Namespace"}
    prefixed = {(kind, f"staging-{name}") for kind, name in names}
    assert {(thing["kind"], thing["metadata"]["name"]) for thing in staging.objects if thing["kind"] != "Namespace"} == prefixed
    for name, pod in cluster.pods().items():
        other = staging.pods()[f"staging-{name}"]
        for variable, target in (("AUTH_URL", "muse-auth"), ("EMBEDDER_URL", "muse-embedder")):
            if variable in pod.environment:
                port = cluster.named("Service", target)["spec"]["ports"][0]["port"]
                assert other.environment[variable] == f"https://staging-{target}:{port}", name
        assert list(other.secrets()) == [f"staging-{secret}" for secret in pod.secrets()]
        assert other.spec["serviceAccountName"] == f"staging-{pod.spec['serviceAccountName']}"
        assert other.environment.keys() == pod.environment.keys()
    for autoscaler in staging.of("HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        staging.named(target["kind"], target["name"])


def test_two_stacks_in_one_namespace_are_separated(cluster, staging):
    both = [(cluster, staging), (staging, cluster)]
    for one, other in both:
        for thing in one.objects:
            for selector in selectors(thing):
                assert not other.selected(selector), thing
                # Each selector matches pods of its own stack.
                assert one.selected(selector), thing
    sources = [(one, pod, other) for one, other in both for pod in one.pods().values()]
    reachable = [
        (source.labels, target.labels, port)
        for one, source, other in sources
        for target in other.pods().values()
        for port in target.ports.values()
        # The gateway's ingress policy allows everyone; no egress policy of the other stack allows its port.
        if sends(one, source.labels, target, port) or (receives(other, target, source.labels, port) and port != 5000)
    ]
    assert not reachable


def selectors(thing):
    """The label selectors of an object that match pods of the stack."""
    spec = thing.get("spec", {})
    if thing["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
    elif thing["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        yield spec["selector"]
    elif thing["kind"] == "NetworkPolicy":
        yield spec["podSelector"]
    for constraint in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
        yield constraint["labelSelector"]


def policies(cluster, labels, direction):
    """The network policies of a pod in one direction. There must be one, else the pod is open."""
    chosen = [
        policy["spec"]
        for policy in cluster.of("NetworkPolicy")
        if direction in policy["spec"]["policyTypes"] and matches(policy["spec"]["podSelector"], labels)
    ]
    assert chosen, f"{labels} is open"
    return chosen


def receives(cluster, pod, labels, port):
    return any(
        port in [pod.port(allowed["port"]) for allowed in rule["ports"]]
        and ("from" not in rule or any(peer_matches(peer, labels) for peer in rule["from"]))
        for policy in policies(cluster, pod.labels, "Ingress")
        for rule in policy.get("ingress", [])
    )


def sends(cluster, labels, pod, port):
    return any(
        port in [allowed["port"] for allowed in rule["ports"]]
        and any("namespaceSelector" not in peer and matches(peer["podSelector"], pod.labels) for peer in rule.get("to", []))
        for policy in policies(cluster, labels, "Egress")
        for rule in policy.get("egress", [])
    )


def peer_matches(peer, labels):
    """Whether the peer matches a pod of the namespace, or Prometheus in its namespace."""
    if labels is None:
        return False
    elsewhere = labels == {"app.kubernetes.io/name": "prometheus"}
    return elsewhere == ("namespaceSelector" in peer) and matches(peer["podSelector"], labels)
