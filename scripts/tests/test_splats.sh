#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The splat patterns find splats, and nothing in a clean log.
. "${0%/*}/lib.sh"

grep -v '^#' "$SCRIPTS/splats" >"$TMP/patterns"
samples=${0%/*}/splats.samples
count=$(wc -l <"$TMP/patterns")

plan $((count + 3))
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
finish
