// SPDX-License-Identifier: GPL-2.0
/*
 * What a shell cannot do with the device, which is the standard input.
 *
 * usage: device command TEXT         write one command; prints what write(2) says:
 *                                    "0" or the name of the error
 *        device poll MILLISECONDS    prints what poll(2) says within that time: "in",
 *                                    "out", "in out" or nothing
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int command(const char *text)
{
	ssize_t n = write(STDIN_FILENO, text, strlen(text));

	if (n < 0)
		puts(strerrorname_np(errno));
	else
		puts(n == (ssize_t)strlen(text) ? "0" : "part of it");
	return 0;
}

static int poll_for(int ms)
{
	struct pollfd pfd = { .fd = STDIN_FILENO, .events = POLLIN | POLLOUT };

	if (poll(&pfd, 1, ms) < 0) {
		perror("device: poll");
		return 1;
	}
	printf("%s%s%s\n", pfd.revents & POLLIN ? "in" : "",
	       (pfd.revents & POLLIN) && (pfd.revents & POLLOUT) ? " " : "",
	       pfd.revents & POLLOUT ? "out" : "");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "command"))
		return command(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "poll"))
		return poll_for(atoi(argv[2]));
	fprintf(stderr, "usage: device {command TEXT | poll MILLISECONDS}\n");
	return 2;
}
