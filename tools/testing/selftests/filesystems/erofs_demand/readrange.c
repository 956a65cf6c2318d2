// SPDX-License-Identifier: GPL-2.0
/*
 * Read ranges of a file, each with one read, and write what is read to the
 * standard output.
 *
 * usage: readrange [--random] FILE OFFSET+LENGTH...
 *
 *   --random   tell the kernel that reads are random: no readahead
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "readrange: %s: %s\n", what, strerror(errno));
	return 1;
}

static int read_range(int fd, const char *range)
{
	unsigned long long offset, length;
	ssize_t n;
	char *buffer;

	if (sscanf(range, "%llu+%llu", &offset, &length) != 2) {
		errno = EINVAL;
		return fail(range);
	}
	buffer = malloc(length);
	if (!buffer)
		return fail(range);
	n = pread(fd, buffer, length, offset);
	if (n < 0 || fwrite(buffer, 1, n, stdout) != (size_t)n)
		return fail(range);
	free(buffer);
	return 0;
}

int main(int argc, char **argv)
{
	int random = argc > 1 && !strcmp(argv[1], "--random");
	int at = 1 + random, fd, error;

	if (argc < at + 2) {
		fprintf(stderr, "usage: readrange [--random] FILE OFFSET+LENGTH...\n");
		return 2;
	}
	fd = open(argv[at], O_RDONLY);
	if (fd < 0)
		return fail(argv[at]);
	if (random) {
		error = posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		if (error) {
			errno = error;
			return fail(argv[at]);
		}
	}
	while (++at < argc)
		if (read_range(fd, argv[at]))
			return 1;
	return fflush(stdout) ? fail("standard output") : 0;
}
