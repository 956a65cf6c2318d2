#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The splat patterns find splats, and nothing in a clean log.
. "${0%/*}/lib.sh"

grep -v '^#' "$SCRIPTS/splats" >"$TMP/patterns"
samples=${0%/*}/splats.samples
count=$(wc -l <"$TMP/patterns")

# counts N LOG-TEXT: so many reports are in it
counts() {
	printf '%b' "$2" >"$TMP/log"
	equal "$("$SCRIPTS/splat" --count "$TMP/log")" "$1"
}
oops='[ 1.0] BUG: unable to handle page fault\n[ 1.0] Oops: 0000\n[ 1.0] Call Trace:\n[ 1.0] Kernel panic\n'
kasan='[ 1.0] BUG: KASAN: slab-use-after-free in f\n[ 1.0] Call Trace:\n[ 1.0]  g+0x1\n'
wild='[ 1.0] Oops: general protection fault, probably\n[ 1.0] KASAN: null-ptr-deref in range\n[ 1.0] Call Trace:\n'
expected='[ 1.0] __kmem_cache_create_args(erofs) failed with error -12\n[ 1.0] CPU: 1\n[ 1.0] Call Trace:\n[ 1.0]  g+0x1\n'
quiet='[ 1.0] reboot: Power down\n'

plan $((count + 12))
n=0
while IFS= read -r pattern; do
	n=$((n + 1))
	sed -n "${n}p" "$samples" >"$TMP/sample"
	check "'$pattern' finds its sample" grep -E -q -e "$pattern" "$TMP/sample"
done <"$TMP/patterns"
check "there is one sample for each pattern" equal "$(wc -l <"$samples")" "$count"
check "a log with a splat is reported" "$SCRIPTS/splat" "$samples"
got=0
"$SCRIPTS/splat" "${0%/*}/splats.clean" >"$TMP/found" || got=$?
cat "$TMP/found"
check "a clean log is not" equal "$got" 1
check "a clean log has none" counts 0 "$quiet"
check "an oops is one report" counts 1 "$oops"
check "a wild pointer is one" counts 1 "$wild"
check "two reports are two" counts 2 "$kasan$quiet$kasan"
check "a call trace that nothing announces is one" counts 1 "${quiet}[ 1.0] Call Trace:\n"
check "one of a cache of inodes that cannot be made is none" counts 0 "$expected$quiet"
check "but the next one is" counts 1 "${expected}[ 1.0] Call Trace:\n"
got=0
"$SCRIPTS/splat" --count "$TMP/no-such-log" 2>"$TMP/err" || got=$?
check "a log that is not there is not clean" equal "$got" 2
check "neither for who only looks" fails "$SCRIPTS/splat" "$TMP/no-such-log"
finish
