"""The profile `scale` under load: an embedder is killed, then everything is upgraded, and no request fails."""

import os
import re
import threading
import time

from engine import ROOT, docker, eventually, say
from single import check_confinement, check_vectors, golden

USERS = 4


class Load:
    """Users who send requests in a closed loop, over REST and gRPC, without retries."""

    def __init__(self, stack, password):
        self.stopping, self.latencies, self.failed = threading.Event(), [], []
        self.clients = [stack.client(password, grpc=number % 2 == 1) for number in range(USERS)]
        self.threads = [threading.Thread(target=self.use, args=(client, number)) for number, client in enumerate(self.clients)]

    def use(self, client, number):
        sentences, _ = golden(8)
        while not self.stopping.is_set():
            start = time.monotonic()
            try:
                vectors = client.embed(sentences)
                assert vectors.shape == (8, 512)
            except Exception as error:  # every failure counts
                self.failed.append(f"{'gRPC' if number % 2 else 'REST'} at {time.strftime('%X')}: {type(error).__name__}: {error}")
            self.latencies.append(time.monotonic() - start)
            time.sleep(0.02)

    def __enter__(self):
        self.start = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.seconds = time.monotonic() - self.start
        for client in self.clients:
            client.close()

    def more(self, count):
        """Waits until `count` more requests have been answered."""
        until = len(self.latencies) + count
        eventually(lambda: len(self.latencies) >= until, "requests are answered", within=60)

    def report(self, what):
        latencies = sorted(self.latencies)
        say(
            f"{what}: {len(latencies)} requests in {self.seconds:.0f} s, {len(self.failed)} failed; "
            f"median {latencies[len(latencies) // 2] * 1000:.0f} ms, 99% {latencies[len(latencies) * 99 // 100] * 1000:.0f} ms, longest {latencies[-1] * 1000:.0f} ms"
        )
        assert not self.failed, "\n".join(self.failed[:20])


def healthy(stack, service):
    container = stack.container(service)
    return container and docker("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy"


def scraped(stack):
    """The number of targets of each service that Prometheus scrapes."""
    output = docker(
        "exec", stack.container("prometheus"), "promtool", "query", "instant", "http://127.0.0.1:9090", "sum by (job) (up)", check=False
    )
    return {job: int(count) for job, count in re.findall(r'job="(\w+)"} => (\d+)', output)}


def run(stack, password, versions):
    stack.up()
    check_confinement(stack)
    check_vectors(stack, password)

    with Load(stack, password) as load:
        load.more(40)
        say("killing an embedder")
        docker("kill", stack.container("embedder-a"))
        load.more(100)
        stack.compose("up", "-d", "--no-build", "--no-deps", "embedder-a")
        eventually(lambda: healthy(stack, "embedder-a"), "the embedder is healthy")
        load.more(40)
    load.report("with an embedder killed")

    before = stack.containers()
    stack.write(MUSE_VERSION=versions[1])
    with Load(stack, password) as load:
        load.more(40)
        say("upgrading all services")
        stack.run([os.path.join(ROOT, "deploy/upgrade"), *stack.options])
        load.more(40)
    load.report("during the upgrade")
    after = stack.containers()
    assert before.keys() == after.keys()
    for service, container in after.items():
        own = container["Config"]["Image"].startswith("muse-")
        assert own == (container["Id"] != before[service]["Id"]), service
        if own:
            assert container["Config"]["Labels"]["org.opencontainers.image.version"] == versions[1], service
    check_vectors(stack, password)

    say("starting Prometheus")
    stack.compose("up", "-d", "--no-build", "prometheus")
    eventually(lambda: scraped(stack) == {"auth": 1, "embedder": 2, "gateway": 2}, "Prometheus scrapes all")
