#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/make-image-matrix makes all images of its list, once.
. "${0%/*}/lib.sh"

MATRIX=${BUILD:-$SCRIPTS/../build}/matrix
LIST=$MATRIX/list
names() { cut -f 1 "$LIST"; }
# What the list says to be there.
files() { cut -f 1,2 "$LIST" | tr -s '\t ' '\n' | grep -vx -e - | sort -u; }
made() { "$SCRIPTS/make-image-matrix" >"$TMP/said" && cat "$TMP/said"; }
at_least() { [ "$1" -ge "$2" ] || { echo "got $1, wanted at least $2"; return 1; }; }
all_there() { files | while read -r f; do [ -s "$MATRIX/$f" ] || { echo "no $f"; return 1; }; done; }
no_others() { { files; echo list; } | sort | diff - "$TMP/ls"; }
says_nothing() { made && [ ! -s "$TMP/said" ]; }
made_again() {
	rm "$MATRIX/inline-512" "$MATRIX/blob-512-512.blob"
	: >"$MATRIX/left-over"
	made && grep -q ': 2 of ' "$TMP/said" && all_there && fails test -e "$MATRIX/left-over"
}

plan 7
check "the images can be made" made
check "there are at least 60" at_least "$(names | wc -l)" 60
check "each has a name of its own" equal "$(names | sort | uniq -d)" ''
check "they are there, with their blobs" all_there
find "$MATRIX" -mindepth 1 -printf '%P\n' | sort >"$TMP/ls"
check "nothing else is" no_others
check "a second time makes nothing" says_nothing
check "what is missing is made, and what is left over goes" made_again
finish
