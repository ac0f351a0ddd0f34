"""Builds the images from their Dockerfiles and checks each of them."""

import json
import subprocess
import tarfile

from engine import ROOT, docker, eventually, inspect, log, say

MEGABYTE = 1_000_000
LIMITS = {"muse-auth": 60, "muse-embedder": 700, "muse-gateway": 60}


def build(version, service=None, tag=None, **arguments):
    """Builds all images or one of them, with the build argument `VERSION`."""
    for name in [service] if service else LIMITS:
        options = [f"--build-arg={key}={value}" for key, value in {"VERSION": version, **arguments}.items()]
        # The network of the host, because the package registries may be unreachable from others.
        done = subprocess.run(
            [
                "docker",
                "build",
                "--network=host",
                *options,
                "--tag",
                f"{name}:{tag or version}",
                "--file",
                f"deploy/images/{name.removeprefix('muse-')}.Dockerfile",
                ".",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"{name} could not be built:\n{done.stdout[-6000:]}")


def check(version, forbidden):
    for name, limit in LIMITS.items():
        image = inspect(f"{name}:{version}")
        size = image["Size"] / MEGABYTE
        say(f"{name}: {size:.1f} MB of {limit} MB")
        assert size < limit, f"{name} is too large"
        configured = image["Config"]
        assert configured["User"] == "10001:10001", configured["User"]
        assert configured["Entrypoint"] == [f"/usr/local/bin/{name}"]
        assert configured["Healthcheck"]["Test"] == ["CMD", f"/usr/local/bin/{name}", "healthcheck"]
        labels = configured["Labels"]
        for label in ("title", "description", "version", "revision", "licenses"):
            assert labels.get(f"org.opencontainers.image.{label}"), f"{name} lacks the label {label}"
        assert labels["org.opencontainers.image.version"] == version
        history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", f"{name}:{version}") + json.dumps(configured)
        for secret in (*forbidden, "ADMIN_PASSWORD", "JWT_SECRET_KEY"):
            assert secret not in history, f"{secret} is in the history of {name}"
        check_files(name, version)


def check_files(name, version):
    """The image contains the program, its licences and its software bill of materials, and no other program."""
    container = docker("create", f"{name}:{version}")
    try:
        exported = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        files, sbom = {}, None
        with tarfile.open(fileobj=exported.stdout, mode="r|") as archive:
            for member in archive:
                files[member.name] = member
                if member.name == f"usr/share/doc/{name}/sbom.cdx.json":
                    sbom = json.load(archive.extractfile(member))
        exported.wait()
    finally:
        docker("rm", "--volumes", container)
    assert sbom and sbom["bomFormat"] == "CycloneDX", f"{name} has no software bill of materials"
    for path in (f"usr/share/doc/{name}/LICENSE", f"usr/share/doc/{name}/NOTICE", "usr/share/doc/libc6/copyright"):
        assert path in files, f"{name} lacks {path}"
    programs = [path for path, member in files.items() if member.size and member.mode & 0o111 and ".so" not in path]
    assert programs == [f"usr/local/bin/{name}"], programs
    assert not [path for path, member in files.items() if member.mode & 0o6000], "something is setuid"
    check_sbom(name, sbom)


def check_sbom(name, sbom):
    """The software bill of materials lists every compiled crate and other part once, with licence and dependencies."""
    listed = [component["bom-ref"] for component in sbom["components"]]
    assert len(listed) == len(set(listed))
    tree = subprocess.run(
        [
            "cargo",
            "tree",
            "--locked",
            "--package",
            name,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--target",
            "x86_64-unknown-linux-gnu",
        ],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    crates = {"pkg:cargo/{}@{}".format(*line.split()[:2]).replace("@v", "@") for line in tree.splitlines() if line}
    missing = crates - set(listed) - {sbom["metadata"]["component"]["bom-ref"]}
    assert len(crates) > 50 and not missing, f"{name} does not list {missing}"
    assert any(reference.startswith("pkg:deb/debian/libc6@") for reference in listed)
    if name == "muse-embedder":
        assert "pkg:pypi/torch@2.11.0" in listed and "model" in listed, listed
    known = set(listed) | {sbom["metadata"]["component"]["bom-ref"]}
    for dependency in sbom["dependencies"]:
        assert dependency["ref"] in known and known.issuperset(dependency.get("dependsOn", []))


def model_on_a_volume(version):
    """The embedder's image without a model reports the missing model, and serves a mounted one."""
    build(version, "muse-embedder", tag=f"{version}-volume", MODEL="volume")
    image = f"muse-embedder:{version}-volume"
    size = inspect(image)["Size"] / MEGABYTE
    say(f"muse-embedder without a model: {size:.1f} MB")
    options = ["--env", "MUSE_PLAINTEXT=true", "--env", "AUTH_URL=http://127.0.0.1:1", "--read-only", "--tmpfs", "/tmp"]
    done = subprocess.run(
        ["docker", "run", "--rm", *options, image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    assert done.returncode != 0 and "the model directory /model lacks" in done.stdout, done.stdout
    container = docker("run", "--detach", *options, "--volume", f"{ROOT}/var/model/muse-3:/model:ro", image)
    try:
        eventually(lambda: "model loaded and warm" in log(container), "the embedder loads the mounted model")
    finally:
        docker("rm", "--force", "--volumes", container)
