# SPDX-License-Identifier: GPL-2.0
# Sourced by the benchmarks: medians of what was measured, and the lines of a table.
# shellcheck shell=sh
#
# $results has a file for each row, with a line for each repetition: columns with tabs
# between.

# median ROW [COLUMN]
median() {
	cut -f "${2:-1}" "$results/$1" | sort -n |
		awk '{ line[NR] = $0 } END { print line[int((NR + 1) / 2)] }'
}

# ratio ROW BASE [COLUMN]: of the medians.
ratio() {
	awk -v a="$(median "$1" "${3:-1}")" -v b="$(median "$2" "${3:-1}")" 'BEGIN { printf "%.2f", a / b }'
}

# per A N: A for each of N.
per() { awk -v a="$1" -v n="$2" 'BEGIN { printf "%.1f", a / n }'; }

# --- the table ----------------------------------------------------------------------

# title TEXT [HEADING]...: begins a table.
title() {
	what=$1
	shift
	printf '\n%-42s' "$what"
	[ $# = 0 ] || printf ' %9s' "$@"
	printf '\n'
}

# compare TEXT COLUMN RAW-ROW ROW [AIM]: both medians, and what the second is to the first.
compare() {
	awk -v text="$1" -v a="$(median "$3" "$2")" -v b="$(median "$4" "$2")" -v aim="${5:-}" 'BEGIN {
		ratio = sprintf("%.2f", b / a)
		split(aim, part, " ")
		met = part[1] == "<=" ? ratio + 0 <= part[2] : ratio + 0 >= part[2]
		printf "  %-40s %9.0f %9.0f %9s", text, a, b, ratio
		printf aim ? "   %s  %s\n" : "\n", aim, met ? "met" : "missed"
	}'
}

# figures TEXT NUMBER...
figures() {
	text=$1
	shift
	printf '  %-40s' "$text"
	printf ' %9s' "$@"
	printf '\n'
}
