# SPDX-License-Identifier: GPL-2.0
# Sourced by the other scripts: where things are, and how to talk.
#
# BUILD  folder for everything that is made or downloaded (default: build/)
# The build root is a Debian 13 tree in $BUILD/root; inside it this
# repository is /src and $BUILD is /build, on every machine.

SRC=$(cd "$(dirname "$0")/.." && pwd)
BUILD=${BUILD:-$SRC/build}
ROOT=$BUILD/root

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
	[ "$(id -u)" = 0 ] ||
		die "$1 needs root (chroot, mount namespaces): run it with sudo"
}

# kver [debug]: the kernel that this build folder was set up for, or the debug
# kernel made from the same source.
kver() {
	[ -s "$BUILD/kver${1:+-$1}" ] || die "no such kernel set up yet: run 'make setup${1:+-$1}'"
	cat "$BUILD/kver${1:+-$1}"
}
