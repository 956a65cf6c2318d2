// SPDX-License-Identifier: GPL-2.0
/*
 * Make files for the benchmarks, and look at them.
 *
 * usage: benchfiles tree DIR COUNT
 *        benchfiles stripes FILE FIRST
 *        benchfiles cached FILE
 *
 *   tree     makes COUNT files in DIR of 1 to 64 KiB, half a KiB from one size to the
 *            next, of random bytes
 *   stripes  writes every other block of 4 KiB into FILE from FIRST on, and so leaves as
 *            many holes in it
 *   cached   prints how many bytes of FILE are in the page cache
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK 4096
#define SIZES 127

static char buffer[64 << 10];

static void die(const char *what)
{
	fprintf(stderr, "benchfiles: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_file(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, flags, 0644);

	if (fd < 0)
		die(name);
	return fd;
}

static void write_block(int fd, size_t len, uint64_t pos)
{
	if (pwrite(fd, buffer, len, pos) != (ssize_t)len)
		die("pwrite");
}

static void tree(const char *path, unsigned int count)
{
	int dir = open_file(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);

	for (unsigned int n = 0; n < count; n++) {
		char name[16];
		int fd;

		snprintf(name, sizeof(name), "%06u", n);
		fd = open_file(dir, name, O_WRONLY | O_CREAT | O_EXCL);
		for (size_t at = 0; at < sizeof(buffer); at += 256)
			if (getrandom(buffer + at, 256, 0) != 256)
				die("getrandom");
		/* A step that has no factor in common takes each size equally often. */
		write_block(fd, 1024 + n * 50 % SIZES * 512, 0);
		close(fd);
	}
}

static void stripes(const char *path, uint64_t first)
{
	int fd = open_file(AT_FDCWD, path, O_WRONLY);
	struct stat st;

	if (fstat(fd, &st))
		die(path);
	for (uint64_t pos = first; pos + BLOCK <= (uint64_t)st.st_size; pos += 2 * BLOCK)
		write_block(fd, BLOCK, pos);
	if (fsync(fd))
		die("fsync");
}

static void cached(const char *path)
{
	struct cachestat_range all = { 0, 0 };
	struct cachestat there;
	int fd = open_file(AT_FDCWD, path, O_RDONLY);

	if (syscall(__NR_cachestat, fd, &all, &there, 0))
		die("cachestat");
	printf("%ju\n", (uintmax_t)there.nr_cache * sysconf(_SC_PAGESIZE));
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (!strcmp(what, "tree") && argc == 4)
		tree(argv[2], strtoul(argv[3], NULL, 10));
	else if (!strcmp(what, "stripes") && argc == 4)
		stripes(argv[2], strtoull(argv[3], NULL, 10));
	else if (!strcmp(what, "cached") && argc == 3)
		cached(argv[2]);
	else {
		fprintf(stderr, "usage: benchfiles tree DIR COUNT | stripes FILE FIRST | cached FILE\n");
		return 2;
	}
	return 0;
}
