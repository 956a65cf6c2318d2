#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The device keeps to its header, as programs in C and in Rust see it.
# shellcheck disable=SC2119 # functions with optional arguments
. "${0%/*}/lib.sh"

load_modules
plan 4

# A file whose bytes are those of the blob "data", mounted, with its metadata
# present and its data missing; the daemon is gone.
mount_missing_file() {
	mkdir "$TMP/tree"
	head -c 16M /dev/urandom >"$TMP/tree/file"
	: >"$SOURCE/data"
	make_image one.img "$TMP/tree" --chunksize=65536 --blobdev="$SOURCE/data"
	prepare >/dev/null
	"$DEMANDD" prefetch --root "$CACHE" --source "$SOURCE" one.img >/dev/null
	start_daemon
	mount_image one.img device=data
	stop_daemon
}

# What a cache can be bound to, and what it cannot.
make_places() {
	mkdir "$1" "$1/good" "$1/read-only" "$1/ramfs"
	: >"$1/file"
	mount -t tmpfs -o ro tmpfs "$1/read-only"
	mount -t ramfs ramfs "$1/ramfs"
	# Shared with the host over 9p.
	ln -s /build/out "$1/without-holes"
}

# subtests TITLE COMMAND [ARG]...: one that writes KTAP itself.
subtests() {
	subtests_title=$1
	shift
	if "$@" >"$TMP/subtests" 2>&1; then
		subtests_result=ok
	else
		subtests_result=not_ok
	fi
	sed 's/^/  /' "$TMP/subtests"
	$subtests_result "$subtests_title"
}

mount_missing_file
make_places "$TMP/places"
file=$(echo "$CACHE"/cache/Ierofs/@*/Ddata)
subtests "in C" "$PROGRAMS/abi" "$CACHE" "$TAG" "$MNT/file" "$file" "$TMP/places"
subtests "in Rust" "${DEMANDD%/*}/abi-check" "$CACHE" "$TAG" "$MNT/file" "$file"
subtests "what wakes a daemon" "$PROGRAMS/wakeups" "$CACHE" "$TAG" "$MNT/file"
check "places that were refused are not held (T33)" \
	umount "$TMP/places/read-only" "$TMP/places/ramfs"
finish
