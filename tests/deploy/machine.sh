#!/bin/bash
# A machine that systemd has started, with the files of FOLDER in place: this one's root file system under an overlay that is
# thrown away, a network with nothing but loopback, and no services of its own. Runs a command there as root, for which the folder
# of this script is /tests, and ends with its status.
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
StandardOutput=file:/said
StandardError=inherit
END
systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no --console=pipe -D "$root" \
  --bind-ro="$(dirname "$(realpath "$0")"):/tests" --boot systemd.unit=command.service </dev/null >"$scratch/console" 2>&1 && status=0 || status=$?
cat "$root/said" || cat "$scratch/console"
exit $status
