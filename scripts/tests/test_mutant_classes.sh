#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Documentation/mutants.md explains each class of differences that the suite "mutants"
# knows, and no other; and mutants.awk tells a known difference from an unknown one.
. "${0%/*}/lib.sh"

SUITE=$SCRIPTS/../tools/testing/selftests/filesystems/erofs_demand

sed -n 's/^| `\([a-z-]*\)` |.*/\1/p' "$SCRIPTS/../Documentation/mutants.md" | sort >"$TMP/explained"
grep -v '^#' "$SUITE/mutants.classes" | cut -f 1 | sort -u >"$TMP/known"
test -s "$TMP/known"
diff "$TMP/known" "$TMP/explained"

# Two classes, and the answers of two modules about mutants 1 to 3.
lines() { printf '%b\n' "$@"; }
lines 'checksum\tmount\tEUCLEAN\tEBADMSG\tdoes not match' \
	'beyond\tread\t.*EUCLEAN at .*\t.*EIO at .*\ti_size' >"$TMP/classes"
lines '1\timage\tsuper.inos' '2\timage\tcompact.i_size' '3\timage\tdirent.nid' >"$TMP/changes"
lines '[ 1.0] erofs: ("/tmp/batch/1"): corrupted image: checksum: does not match' >"$TMP/log"
lines '1\t-\tmount\tEBADMSG' '2\t-\tmount\t0' '2\t/a\tread\t0 x EIO at 0' '3\t/\tlist\t2' \
	'3\t/a\tstat\tx' >"$TMP/stock"
lines '1\t-\tmount\tEUCLEAN' '2\t-\tmount\t0' '2\t/a\tread\t0 x EUCLEAN at 0' '3\t/\tlist\t2' \
	'3\t/a\tstat\tx' >"$TMP/ours"
compare() {
	awk -f "$SUITE/mutants.awk" "$TMP/classes" "$TMP/changes" "$TMP/log" "$TMP/stock" "$TMP/ours" >"$TMP/out"
}
compare
grep -q 'checksum: 1' "$TMP/out"
grep -q 'answers compared: 5, that follow from a difference: 0, without a class: 0' "$TMP/out"

# Another log, another change: no class.
lines '[ 1.0] erofs: ("/tmp/batch/1"): corrupted image: something else' >"$TMP/log"
fails compare
grep -q 'unknown: - mount: ours EUCLEAN' "$TMP/out"

# An answer that only one has is a difference, unless what is above it differs, too.
lines '[ 1.0] erofs: ("/tmp/batch/1"): corrupted image: checksum: does not match' >"$TMP/log"
lines '3\t/b\tstat\tx' >>"$TMP/ours"
fails compare
grep -q 'unknown: /b stat: ours x, .* nothing' "$TMP/out"
sed -i 's/^3	\/	list	2/3	\/	list	3/' "$TMP/ours"
lines 'more\tlist\t3\t2\t-' >>"$TMP/classes"
compare
grep -q 'that follow from a difference: 1, without a class: 0' "$TMP/out"
