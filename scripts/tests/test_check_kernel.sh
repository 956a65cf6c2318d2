#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/check-kernel takes the kernels that modules can be built for, and says
# of others why not.
set -eu
. "$(dirname "$0")/lib.sh"

RUSTC='rustc 1.85.1 (4eb161250 2025-03-15)'
config=$TMP/config

write_config() {
	cat >"$config" <<-EOF
		CONFIG_MODULES=y
		CONFIG_RUST=y
		CONFIG_RUSTC_VERSION_TEXT="$RUSTC"
		CONFIG_NETFS_SUPPORT=m
		CONFIG_FSCACHE=y
	EOF
}
accepts() { "$SCRIPTS/check-kernel" "$config" "$RUSTC"; }
# refuses REASON [RUSTC]
refuses() {
	! "$SCRIPTS/check-kernel" "$config" "${2:-$RUSTC}" 2>"$TMP/reason" || return 1
	cat "$TMP/reason"
	grep -qF -- "$1" "$TMP/reason" && [ "$(wc -l <"$TMP/reason")" = 1 ]
}

plan 5
write_config
check "a kernel with Rust and the same compiler is accepted" accepts
check "another rustc is refused, naming both" refuses "here is 'rustc 1.96.1'" 'rustc 1.96.1'
sed -i '/CONFIG_RUST=y/d' "$config"
check "a kernel without CONFIG_RUST is refused" refuses 'without CONFIG_RUST,'
write_config
sed -i 's/CONFIG_FSCACHE=y/# CONFIG_FSCACHE is not set/' "$config"
check "a kernel without CONFIG_FSCACHE is refused" refuses 'without CONFIG_FSCACHE,'
rm "$config"
check "a missing configuration is refused" refuses 'no such configuration'
finish
