"""The list of an image's parts, in the format CycloneDX 1.6: crates, Debian packages, libtorch, the model."""

import json
import os
import subprocess

import tomllib


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def licence(text):
    """A licence's field. Some crates still write `MIT/Apache-2.0`."""
    return [{"expression": text.replace("/", " OR ")}] if text else []


def crates_of(program, metadata_path):
    """Components and their dependencies: `program`'s crate first, then all that is compiled into it."""
    with open(metadata_path, encoding="utf-8") as file:
        metadata = json.load(file)
    packages = {package["id"]: package for package in metadata["packages"]}
    edges = {
        node["id"]: [dependency["pkg"] for dependency in node["deps"] if any(kind["kind"] is None for kind in dependency["dep_kinds"])]
        for node in metadata["resolve"]["nodes"]
    }
    with open("Cargo.lock", "rb") as file:
        sums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in tomllib.load(file)["package"]}
    first = next(identity for identity, package in packages.items() if package["name"] == program)
    seen, queue = [first], [first]
    while queue:
        for dependency in edges[queue.pop()]:
            if dependency not in seen:
                seen.append(dependency)
                queue.append(dependency)
    reference = {identity: f"pkg:cargo/{packages[identity]['name']}@{packages[identity]['version']}" for identity in seen}
    components = []
    for identity in seen:
        name, version = packages[identity]["name"], packages[identity]["version"]
        component = {
            "type": "library",
            "bom-ref": reference[identity],
            "name": name,
            "version": version,
            "purl": reference[identity],
            "licenses": licence(packages[identity]["license"]),
        }
        if sums.get((name, version)):
            component["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
        components.append(component)
    dependencies = [{"ref": reference[identity], "dependsOn": sorted(reference[to] for to in edges[identity])} for identity in seen]
    return components, dependencies


def packages_of(paths):
    """The Debian packages that own these files."""
    names = set()
    for path in paths:
        # The files of /lib are known to the package manager by either name of the merged folder.
        for known in (path, "/usr" + path, os.path.realpath(path)):
            found = subprocess.run(["dpkg-query", "--search", known], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if found.returncode == 0:
                names.add(found.stdout.split(":")[0])
                break
        else:
            # What an installation script made belongs to no package; its folder does.
            if path != "/etc/ssl/certs/ca-certificates.crt":
                raise SystemExit(f"no package owns {path}")
            names.add("ca-certificates")
    packages = []
    for name in sorted(names):
        version, architecture = output("dpkg-query", "--show", "--showformat=${Version} ${Architecture}", name).split()
        reference = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        packages.append({"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference})
    return packages


def wheels_of(folders):
    """The Python packages whose libraries are in the image, by their `.dist-info` folders."""
    wheels = []
    for folder in folders:
        name, version = os.path.basename(folder)[: -len(".dist-info")].rsplit("-", 1)
        reference = f"pkg:pypi/{name.replace('_', '-')}@{version}"
        wheels.append({"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference})
    return wheels


def model_in(folder):
    manifest_path = os.path.join(folder, "manifest.json")
    if not os.path.exists(manifest_path):
        return []
    with open(manifest_path, encoding="utf-8") as file:
        manifest = json.load(file)
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": "model",
            "name": manifest["name"],
            "version": manifest["version"],
            "description": f"{manifest['attribution']}; computes in {manifest['precision']}",
            "licenses": licence(manifest["license"]),
            "hashes": [{"alg": "SHA-256", "content": manifest["files"]["model.pt"]["sha256"]}],
        }
    ]


def document(program, metadata_path, packages, wheels, model):
    components, dependencies = crates_of(program, metadata_path)
    others = packages + wheels_of(wheels) + (model_in(model) if model else [])
    dependencies[0]["dependsOn"] = sorted(dependencies[0]["dependsOn"] + [other["bom-ref"] for other in others])
    dependencies += [{"ref": other["bom-ref"]} for other in others]
    about = {**components[0], "type": "application"}
    return (
        json.dumps(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.6",
                "version": 1,
                "metadata": {"component": about},
                "components": components[1:] + others,
                "dependencies": dependencies,
            },
            indent=1,
        )
        + "\n"
    )
