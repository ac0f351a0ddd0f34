#!/bin/bash
# Boots systemd in a container and runs a command in it as root; exits with its status. The
# container has this machine's root file system under a temporary overlay with the files of FOLDER,
# a network with loopback only, and no other services. The folder of this script is mounted at
# /tests.
#
# usage: unshare --mount machine.sh FOLDER COMMAND…
set -euo pipefail

files=$1; shift
scratch=$(mktemp -d)
mount -t tmpfs scratch "$scratch"
root=$scratch/root
mkdir "$scratch"/{new,work,root}
chmod 755 "$scratch/new"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/new,workdir=$scratch/work" "$root"
cp -a "$files/." "$root/"
chmod 755 "$root"

rm -rf "$root"/etc/systemd/system/*
: > "$root/etc/machine-id"
printf '%q ' "$@" > "$root/command"
cat > "$root/etc/systemd/system/command.service" <<'END'
[Unit]
SuccessAction=exit-force
FailureAction=exit-force
After=basic.target
Requires=basic.target

[Service]
Type=oneshot
ExecStart=/bin/bash /command
StandardOutput=file:/output
StandardError=inherit
END
systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no --console=pipe -D "$root" \
  --bind-ro="$(dirname "$(realpath "$0")"):/tests" --boot systemd.unit=command.service </dev/null >"$scratch/console" 2>&1 && status=0 || status=$?
cat "$root/output" || cat "$scratch/console"
exit $status
