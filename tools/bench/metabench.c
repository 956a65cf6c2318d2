// SPDX-License-Identifier: GPL-2.0
/*
 * Do something with a file system many times, and tell how long it took.
 *
 * usage: metabench mount DEVICE DIR COUNT
 *        metabench walk DIR
 *        metabench touch FILE COUNT SEED
 *
 *   mount   mounts the erofs on DEVICE and unmounts it, COUNT times
 *   walk    lists DIR and everything below it, and asks for the status of each entry
 *   touch   maps FILE and reads a byte of COUNT pages, in an order that SEED decides
 *
 * Prints one line, with tabs between: how many of them in a second; the time of one; the
 * processor time of this program for one; the time that the machine's processors were
 * not idle for one; all three in microseconds; and a sum over what was seen.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"

static uint64_t sum;

static void die(const char *what)
{
	fprintf(stderr, "metabench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static size_t mount_often(const char *device, const char *dir, size_t count)
{
	for (size_t n = 0; n < count; n++) {
		if (mount(device, dir, "erofs", MS_RDONLY, NULL))
			die("mount");
		if (umount(dir))
			die("umount");
	}
	return count;
}

static size_t walk(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	size_t count = 0;

	if (!dir)
		die(name);
	while ((entry = readdir(dir))) {
		struct stat st;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			die(entry->d_name);
		sum += (st.st_ino ^ st.st_size) * (st.st_mode | 1);
		count++;
		if (S_ISDIR(st.st_mode))
			count += walk(fd, entry->d_name);
	}
	closedir(dir);
	return count;
}

static size_t touch(const char *file, size_t count, uint64_t state)
{
	long page = sysconf(_SC_PAGESIZE);
	int fd = open(file, O_RDONLY);
	const volatile unsigned char *bytes;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(file);
	bytes = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED || madvise((void *)bytes, st.st_size, MADV_RANDOM))
		die("mmap");
	for (size_t n = 0; n < count; n++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		sum += bytes[state % (st.st_size / page) * page] * (n + 1);
	}
	return count;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";
	double start = now_us(), used = used_us(), idle = idle_us();
	size_t count = 0;

	if (!strcmp(mode, "mount") && argc == 5)
		count = mount_often(argv[2], argv[3], strtoul(argv[4], NULL, 10));
	else if (!strcmp(mode, "walk") && argc == 3)
		count = walk(AT_FDCWD, argv[2]);
	else if (!strcmp(mode, "touch") && argc == 5)
		count = touch(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10) * 2 + 1);
	if (!count) {
		fprintf(stderr, "usage: metabench mount DEVICE DIR COUNT | walk DIR | touch FILE COUNT SEED\n");
		return 2;
	}
	start = now_us() - start;
	used = used_us() - used;
	idle = idle_us() - idle;
	printf("%f\t%f\t%f\t%f\t%llu\n", count / start * 1e6, start / count, used / count,
	       (start * sysconf(_SC_NPROCESSORS_ONLN) - idle) / count, (unsigned long long)sum);
	return 0;
}
