#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""api.py SOCKET METHOD PATH: asks a daemon on its socket and prints the answer; fails if the daemon refuses."""

import http.client
import socket
import sys

path, method, target = sys.argv[1:]
connection = http.client.HTTPConnection("x")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
connection.request(method, target)
answer = connection.getresponse()
print(answer.read().decode(), end="")
sys.exit(answer.status >= 400)
