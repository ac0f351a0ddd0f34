"""deploy/compose.yaml with passwords as people choose them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PASSWORDS = ["correct$horse battery #9", "p@ss/w#rd%", 'say "hello" $1 #', "back\\slash $HOME"]


def compose():
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    standalone = shutil.which("docker-compose")
    return [standalone] if standalone else pytest.skip("there is no docker compose")


@pytest.mark.parametrize("password", PASSWORDS)
def test_quoted_password_reaches_the_containers_unchanged(tmp_path, password):
    env = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    lines = [line for line in env.splitlines() if line and not line.startswith("#")]
    values = {"ADMIN_PASSWORD": password, "JWT_SECRET_KEY": password, "COMPOSE_PROFILES": "scale,observe"}
    lines = [line for line in lines if line.split("=")[0] not in values]
    lines += [f"{name}='{value}'" for name, value in {**values, "POSTGRES_PASSWORD": password}.items()]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [*compose(), "-f", DEPLOY / "compose.yaml", "--env-file", tmp_path / ".env", "config"]
    environment = {name: value for name, value in os.environ.items() if name not in (*values, "POSTGRES_PASSWORD")}
    ran = subprocess.run(command, capture_output=True, text=True, env={**environment, "COMPOSE_PROFILES": "scale,observe"})
    assert ran.returncode == 0, ran.stderr
    # `config` writes a file for compose, in which $ is written as $$.
    services = yaml.safe_load(ran.stdout.replace("$$", "$"))["services"]
    auth, postgres = services["auth-postgres"]["environment"], services["postgres"]["environment"]
    assert auth["ADMIN_PASSWORD"] == auth["PGPASSWORD"] == postgres["POSTGRES_PASSWORD"] == password
    assert auth["DATABASE_URL"] == "postgres://muse@postgres/muse?sslmode=disable"
