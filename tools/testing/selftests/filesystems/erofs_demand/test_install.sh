#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# After "make install" modprobe takes our erofs.ko, by its name and when a file system of that
# type is mounted, and after "make uninstall" the kernel's own again. On a copy of the folder
# of modules, with what an erofs needs.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

BUILD=${BUILD:-/build}
REPOSITORY=${0%/*}/../../../../..
RELEASE=$(uname -r)
[ -e "$REPOSITORY/scripts/install-modules" ] || skip_all "not in the repository"
[ "$(cat "$BUILD/kver" 2>/dev/null)" = "$RELEASE" ] || skip_all "no modules for this kernel in $BUILD"
need_stock_module
plan 19

ROOT=$TMP/root
MODULES=$ROOT/lib/modules/$RELEASE
STOCK_COPY=$MODULES/${STOCK#"/lib/modules/$RELEASE/"}
OURS=$MODULES/updates/erofs.ko
DAEMON_COPY=$ROOT/usr/local/sbin/demandd

mkdir -p "$MODULES/kernel/fs"
cp -r "/lib/modules/$RELEASE"/kernel/fs/erofs "/lib/modules/$RELEASE"/kernel/fs/netfs "$MODULES/kernel/fs/"
cp "/lib/modules/$RELEASE"/modules.builtin "/lib/modules/$RELEASE"/modules.builtin.modinfo \
	"/lib/modules/$RELEASE"/modules.order "$MODULES/"
depmod -b "$ROOT" "$RELEASE"

make_target() { make -s -C "$REPOSITORY" BUILD="$BUILD" INSTALL_MOD_PATH="$ROOT" DESTDIR="$ROOT" "$1"; }
# The file that a name stands for, and the one that is loaded for a name or an alias.
file_of() { modinfo -b "$ROOT" -F filename "$1"; }
loaded_for() { modprobe -d "$ROOT" --show-depends "$1" | sed -n 's/^insmod \([^ ]*erofs\.ko[^ ]*\) *$/\1/p'; }
# load NAME, and tell whether a module from outside the kernel's tree came: it taints it.
load() { modprobe -d "$ROOT" "$1" && cut -c 1 /sys/module/erofs/taint; }
is_there() { modprobe -d "$ROOT" -n "$1" 2>&1; }

check "before, modprobe takes the kernel's own" equal "$(loaded_for erofs)" "$STOCK_COPY"
check "and there is no other of our modules" fails is_there cachefiles_demand

check "our modules can be installed" make_target install
check "then erofs is ours" equal "$(file_of erofs)" "$OURS"
check "and modprobe takes it" equal "$(loaded_for erofs)" "$OURS"
check "also for a mount of that type" equal "$(loaded_for fs-erofs)" "$OURS"
check "the other one is there" equal "$(file_of cachefiles_demand)" "$MODULES/updates/cachefiles_demand.ko"
check "and the daemon, which runs" eval '"$DAEMON_COPY" --help >"$TMP/help" && grep -q serve "$TMP/help"'
check "what is loaded for a mount is ours" eval 'equal "$(load fs-erofs)" O && rmmod erofs'
check "the kernel's own is left in its place" cmp "$STOCK" "$STOCK_COPY"
check "installing once more changes nothing" eval \
	'before=$(stat -c %.Y "$OURS") && make_target install && equal "$(stat -c %.Y "$OURS")" "$before"'

check "our modules can be uninstalled" make_target uninstall
check "then erofs is the kernel's own" equal "$(file_of erofs)" "$STOCK_COPY"
check "and modprobe takes it" equal "$(loaded_for erofs)" "$STOCK_COPY"
check "also for a mount of that type" equal "$(loaded_for fs-erofs)" "$STOCK_COPY"
check "the other one is gone" fails is_there cachefiles_demand
check "and the daemon" fails test -e "$DAEMON_COPY"
check "what is loaded for a mount is the kernel's own" eval 'equal "$(load fs-erofs)" "" && rmmod erofs'
check "uninstalling once more is no error" make_target uninstall
finish
