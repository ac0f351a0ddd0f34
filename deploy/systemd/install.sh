#!/bin/sh
# Installs or uninstalls the programs, libtorch, a converted model and the systemd units.
#
# usage: install.sh install|uninstall MODEL_DIR
#
# PREFIX (/usr/local) and DESTDIR (empty) follow the GNU coding standards. Settings in /etc/muse are
# created if they do not exist; they are never overwritten or removed, and neither is the database
# in /var/lib/muse.
set -eu
cd "$(dirname "$0")/../.."

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
settings=${DESTDIR:-}/etc/muse
programs="muse-auth muse-embedder muse-gateway muse-models"
units="muse.target muse-auth.service muse-embedder.service muse-gateway.service
  muse-.service.d/common.conf muse-embedder.service.d/libtorch.conf"
model=${2:?}
case $prefix in
  /*) ;;
  *) echo "error: PREFIX must be an absolute path, not '$prefix'" >&2; exit 64 ;;
esac

install_all() {
  for needed in $(printf 'target/release/%s ' $programs) "$model/manifest.json"; do
    [ -e "$needed" ] || { echo "error: $needed does not exist: run 'make build model' first" >&2; exit 1; }
  done
  for program in $programs; do
    install -D -m 755 "target/release/$program" "$root/bin/$program"
  done
  # All in one folder: libtorch searches for its libraries in its own folder.
  install -d -m 755 "$root/lib/muse" "$root/share/muse/model" "$root/share/doc/muse"
  install -m 755 .libtorch/site/torch/lib/*.so* .libtorch/site/nvidia/cu13/lib/*.so* "$root/lib/muse"
  install -m 644 "$model"/* "$root/share/muse/model"
  install -m 644 LICENSE NOTICE models/LICENSE-WEIGHTS README.md "$root/share/doc/muse"
  for unit in $units; do
    install -D -m 644 "deploy/systemd/$unit" "$root/lib/systemd/system/$unit"
    sed -i "s|@PREFIX@|$prefix|g" "$root/lib/systemd/system/$unit"
  done
  install -D -m 644 deploy/systemd/muse.sysusers "$root/lib/sysusers.d/muse.conf"
  for example in deploy/systemd/*.env; do
    file=$settings/$(basename "$example")
    [ -e "$file" ] || install -D -m 600 "$example" "$file"
  done
}

uninstall_all() {
  for program in $programs; do rm -f "$root/bin/$program"; done
  for unit in $units; do rm -f "$root/lib/systemd/system/$unit"; done
  rm -f "$root/lib/sysusers.d/muse.conf"
  rm -rf "$root/lib/muse" "$root/share/muse" "$root/share/doc/muse"
  rmdir "$root/lib/systemd/system"/muse-*.service.d 2>/dev/null || true
}

case $1 in
  install) install_all ;;
  uninstall) uninstall_all ;;
  *) sed -n 's/^# usage: //p' "$0" >&2; exit 64 ;;
esac
