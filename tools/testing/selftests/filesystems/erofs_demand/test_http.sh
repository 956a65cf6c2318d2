#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# An image that comes from a web server over a slow network: what is read is right, a server that has something else is
# not believed, and one that is away for a while is waited for.
. "${0%/*}/lib.sh"

for program in ip tc nginx python3; do
	command -v "$program" >/dev/null || skip_all "there is no $program"
done
load_modules
# shellcheck disable=SC2015 # both or nothing
modprobe veth && modprobe sch_netem || skip_all "the kernel has no veth or no sch_netem"

MiB=1048576
FAR=10.77.0.2
SERVERS=''

# The servers live in a network of their own: 20 ms to get there, and 100 Mbit/s back.
make_network() {
	ip netns add far
	ip link add near0 type veth peer name far0 netns far
	ip address add 10.77.0.1/24 dev near0
	ip link set near0 up
	ip -n far address add $FAR/24 dev far0
	ip -n far link set far0 up
	ip netns exec far tc qdisc add dev far0 root netem delay 20ms rate 100mbit limit 10000
}

# start_server PORT DIRECTORY: returns when it answers.
start_server() {
	cat >"$TMP/nginx.$1" <<-END
		daemon off; master_process off; pid $TMP/pid.$1;
		events { }
		http {
			access_log $TMP/access.$1;
			client_body_temp_path $TMP/body; proxy_temp_path $TMP/proxy; fastcgi_temp_path $TMP/fastcgi;
			uwsgi_temp_path $TMP/uwsgi; scgi_temp_path $TMP/scgi;
			server { listen $FAR:$1; root $2; }
		}
	END
	ip netns exec far nginx -e "$TMP/error.$1" -c "$TMP/nginx.$1" &
	SERVERS="$SERVERS $!"
	wait_for 20 answers "$1"
}
answers() { python3 -c "import socket; socket.create_connection(('$FAR', $1), 5)" 2>/dev/null; }

stop_servers() {
	for server in $SERVERS; do
		kill -9 "$server" 2>/dev/null || :
		wait "$server" 2>/dev/null || :
	done
	SERVERS=''
}

at_exit() {
	at_exit_status=$?
	stop_servers
	ip netns delete far 2>/dev/null
	(exit "$at_exit_status")
	cleanup
}
trap at_exit EXIT

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

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

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

# daemon_said EXTENDED-REGEX
daemon_said() { grep -E -q -- "$1" "$DAEMON_LOG"; }

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
