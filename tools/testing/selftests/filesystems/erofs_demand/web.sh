# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh by tests of images that come from a web server: a network of its own for the servers, with 20 ms
# to get there and 100 Mbit/s back. Both go when the test ends.
# shellcheck shell=sh

# shellcheck disable=SC2034 # for those who source this
MiB=1048576
FAR=10.77.0.2
SERVERS=''

need_network() {
	for program in ip tc nginx python3; do
		command -v "$program" >/dev/null || skip_all "there is no $program"
	done
	# shellcheck disable=SC2015 # both or nothing
	modprobe veth && modprobe sch_netem || skip_all "the kernel has no veth or no sch_netem"
}

make_network() {
	ip netns add far
	ip link add near0 type veth peer name far0 netns far
	ip address add 10.77.0.1/24 dev near0
	ip link set near0 up
	ip -n far address add $FAR/24 dev far0
	ip -n far link set far0 up
	ip netns exec far tc qdisc add dev far0 root netem delay 20ms rate 100mbit limit 10000
}

# start_server PORT DIRECTORY [DIRECTIVES]: of nginx, for this server; returns when it answers. Its process is in $server.
start_server() {
	cat >"$TMP/nginx.$1" <<-END
		daemon off; master_process off; pid $TMP/pid.$1;
		events { }
		http {
			access_log $TMP/access.$1;
			client_body_temp_path $TMP/body; proxy_temp_path $TMP/proxy; fastcgi_temp_path $TMP/fastcgi;
			uwsgi_temp_path $TMP/uwsgi; scgi_temp_path $TMP/scgi;
			server { listen $FAR:$1; root $2; ${3:-} }
		}
	END
	ip netns exec far nginx -e "$TMP/error.$1" -c "$TMP/nginx.$1" &
	server=$!
	SERVERS="$SERVERS $server"
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
	set +e
	stop_servers
	ip netns delete far 2>/dev/null
	(exit "$at_exit_status")
	cleanup
}
trap at_exit EXIT

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# daemon_said EXTENDED-REGEX
daemon_said() { grep -E -q -- "$1" "$DAEMON_LOG"; }
