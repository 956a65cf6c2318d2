#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Documentation/bugs.md has a row for each of the 67 numbers, and names tests that
# exist: their titles stand in the files that are named, and what has a number in its
# title is in the row of that number.
. "${0%/*}/lib.sh"

SRC=$SCRIPTS/..
SUITE=tools/testing/selftests/filesystems/erofs_demand
page=$SRC/Documentation/bugs.md

# rows: number, tab, the rest of the row.
rows() { sed -n 's/^| T\([0-9]*\) | /\1	/p' "$page"; }

# cited: number, tab, file, tab, title or function, for each test that a row names.
cited() {
	rows | awk -F '\t' '{
		number = $1; row = $2; file = ""
		while (match(row, /`[a-z_\/0-9.-]+\.(sh|c|rs)`|"[^"]+"|`fn [a-z0-9_]+`/)) {
			token = substr(row, RSTART + 1, RLENGTH - 2)
			kind = substr(row, RSTART, 1)
			row = substr(row, RSTART + RLENGTH)
			if (kind == "`" && token !~ /^fn /) file = token
			else print number "\t" file "\t" token
		}
	}'
}
path_of() {
	case $1 in
	*/*) echo "$SRC/$1" ;;
	*) echo "$SRC/$SUITE/$1" ;;
	esac
}

all_numbers() { rows | cut -f 1 | cmp - "$TMP/wanted"; }

all_there() {
	cited | while IFS='	' read -r number file title; do
		grep -qF -e "$title" "$(path_of "$file")" || echo "T$number: $file has no: $title"
	done | fails grep .
}

# numbers_in TITLE: those that it carries
numbers_in() { printf '%s\n' "$1" | grep -oE '\bT[0-9]+\b|\bt[0-9]+_' | tr -d 'Tt_' || :; }

# Those in titles of shell and C tests, and in names of functions.
carried() {
	{
		grep -hoE '"[^"]*\(T[0-9]+[^"]*"' "$SRC/$SUITE"/*.sh "$SRC/$SUITE"/*.c
		git -C "$SRC" grep -hoE 'fn t[0-9]+_[a-z0-9_]+' -- fs tools
	} | tr -d '"' | sort -u
}
all_named() {
	carried | while read -r title; do
		for number in $(numbers_in "$title"); do
			rows | grep "^$number	" | grep -qF -e "${title#round \$round: }" ||
				echo "T$number: not in its row: $title"
		done
	done | fails grep .
}

# A row without a test says why.
tested_or_impossible() {
	rows | grep -vE '`[^`]*\.(sh|rs|c)`[^|]*\|$|`scripts/|cannot happen' | fails grep .
}

plan 4
seq 67 >"$TMP/wanted"
check "every number has its row, in order" all_numbers
check "the tests that are named exist" all_there
check "every number in a test's title is in its row" all_named
check "a row without a test says that it cannot happen" tested_or_impossible
finish
