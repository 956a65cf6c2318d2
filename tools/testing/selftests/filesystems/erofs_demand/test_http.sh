#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An image that comes from a web server over a slow network: what is read is right, a server that has something else is
# not believed, and one that is away for a while is waited for.
. "${0%/*}/lib.sh"
. "${0%/*}/web.sh"

need_network
load_modules
# begin URL...: an empty cache that is filled from these, and the image mounted.
begin() {
	rm -rf "$CACHE"
	mkdir "$CACHE"
	"$DEMANDD" prepare --root "$CACHE" --proxy none --source "http://$FAR:8001" --image "app@$DIGEST" >/dev/null || return
	# The first one is that of lib.sh.
	SOURCE=$1
	shift
	set -- --proxy none "$@"
	start_daemon "$@" && mount_image app.img
}
end() {
	umount "$MNT"
	stop_daemon
}

# Reads a file from end to end, and tells how fast.
timed() {
	began=$(milliseconds)
	cmp "$MNT/$1" "$TMP/tree/$1" || return
	echo "$1: $(stat -c %s "$TMP/tree/$1") bytes in $(($(milliseconds) - began)) ms"
}

# What came of a file before reading it failed is right, and it did fail.
right_as_far_as_it_goes() {
	! cat "$MNT/$1" >"$TMP/got" 2>"$TMP/error" || { echo "it was read"; return 1; }
	grep 'Input/output error' "$TMP/error" || return
	[ -s "$TMP/got" ] || { echo "nothing of it was read"; return 1; }
	cmp -n "$(stat -c %s "$TMP/got")" "$TMP/got" "$TMP/tree/$1"
}

# A reader waits while no server is there, and gets the right bytes once one is.
wait_for_server() {
	stop_servers
	cmp "$MNT/large" "$TMP/tree/large" &
	reader=$!
	wait_for 30 daemon_said "8001/ fails: " || return
	kill -0 "$reader" || { echo "the reader did not wait"; return 1; }
	start_server 8001 "$SERVED" || return
	wait "$reader" && daemon_said '8001/ answers again'
}

plan 11
make_network
SERVED=$SOURCE
mkdir "$TMP/tree"
head -c $((3 * MiB)) /dev/urandom >"$TMP/tree/large"
for n in 1 2 3 4 5; do echo "file $n" >"$TMP/tree/small$n"; done
DIGEST=$("$DEMANDD" image build "$TMP/tree" --name app --into "$SERVED")
cp -r "$SERVED" "$TMP/wrong"
# One bit, in a chunk in the middle of the large file.
python3 - "$TMP/wrong/app.blob" <<-'END'
	import sys
	with open(sys.argv[1], "r+b") as blob:
	    blob.seek(1000000)
	    byte = blob.read(1)[0]
	    blob.seek(1000000)
	    blob.write(bytes([byte ^ 1]))
END
start_server 8001 "$SERVED"
start_server 8002 "$TMP/wrong"

check "an image is mounted from a web server" begin "http://$FAR:8001"
check "a small file is right" cmp "$MNT/small3" "$TMP/tree/small3"
check "a large file is right" timed large
check "only ranges were asked for" fails grep -E '"GET /app.(img|blob) HTTP/1.1" 200' "$TMP/access.8001"
end

check "an image is mounted from a server that has one bit wrong" begin "http://$FAR:8002"
check "a read of that gives an error, and no wrong byte" right_as_far_as_it_goes large
check "the daemon names chunk, blob and server" \
	daemon_said "chunk 15 of app.blob, 983040\+65536, is wrong: .*; http://$FAR:8002/ had it"
check "other files can be read" cmp "$MNT/small5" "$TMP/tree/small5"
end

check "with another server beside it" begin "http://$FAR:8002" --source "http://$FAR:8001"
check "all of the file is right" cmp "$MNT/large" "$TMP/tree/large"
end

begin "http://$FAR:8001" >/dev/null 2>&1
check "a server that is away for a while costs only waiting" wait_for_server
end
finish
