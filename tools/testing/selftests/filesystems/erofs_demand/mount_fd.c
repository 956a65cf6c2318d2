// SPDX-License-Identifier: GPL-2.0
/*
 * Mount what an open file has, and tell how it went: "0", or the step that
 * failed and the name of its error.
 *
 * usage: mount_fd TYPE FILE DIRECTORY [OPTION]...
 *
 * An option is NAME or NAME=VALUE. "path" among them opens FILE only as a path.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static void end(const char *step)
{
	printf("%s %s\n", step, strerrorname_np(errno));
	exit(0);
}

int main(int argc, char **argv)
{
	int flags = O_RDONLY | O_CLOEXEC;
	int context, source, mount, i;

	if (argc < 4) {
		fprintf(stderr, "usage: mount_fd TYPE FILE DIRECTORY [OPTION]...\n");
		return 2;
	}
	for (i = 4; i < argc; i++)
		if (!strcmp(argv[i], "path"))
			flags |= O_PATH;
	source = open(argv[2], flags);
	if (source < 0)
		end("open");
	context = fsopen(argv[1], FSOPEN_CLOEXEC);
	if (context < 0)
		end("fsopen");
	if (fsconfig(context, FSCONFIG_SET_FD, "source", NULL, source))
		end("source");
	for (i = 4; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!strcmp(argv[i], "path"))
			continue;
		if (value)
			*value++ = '\0';
		if (fsconfig(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
			     argv[i], value, 0))
			end(argv[i]);
	}
	if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		end("create");
	mount = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	if (mount < 0)
		end("fsmount");
	if (move_mount(mount, "", AT_FDCWD, argv[3], MOVE_MOUNT_F_EMPTY_PATH))
		end("move_mount");
	puts("0");
	return 0;
}
