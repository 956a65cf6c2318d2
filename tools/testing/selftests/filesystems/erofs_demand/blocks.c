// SPDX-License-Identifier: GPL-2.0
/*
 * Look at files block by block, a block being the unit in which data is missing.
 *
 * usage: blocks count FILE...           how many blocks of the files are present: all
 *                                       of the block lies outside of holes
 *        blocks compare FILE TRUTH...   compare those that are present
 *        blocks read FILE TRUTH...      compare those that can be read, each by itself;
 *                                       one that gives EIO is missing
 *
 * Prints how many blocks are present and missing, and how many bytes are wrong:
 * "present N, missing N, wrong N" ("count": only the first number); and of blocks
 * with wrong bytes where they are. The status is 1 if there is one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

#define BLOCK CACHEFILES_DEMAND_BLOCK
/* Wrong blocks that are told about. */
#define ENOUGH 20

static unsigned long long present, missing, wrong;

static void die(const char *what)
{
	fprintf(stderr, "blocks: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int open_file(const char *path, off_t *size)
{
	struct stat stat;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &stat))
		die(path);
	*size = stat.st_size;
	return fd;
}

/* Whether no byte from `start` to `end` lies in a hole. */
static bool is_present(int fd, const char *path, off_t start, off_t end)
{
	off_t hole = lseek(fd, start, SEEK_HOLE);

	if (hole < 0)
		die(path);
	return hole >= end;
}

/* Reads a block; false if it is missing. */
static bool read_block(int fd, const char *path, char *block, off_t start, off_t len)
{
	ssize_t n = pread(fd, block, len, start);

	if (n < 0 && errno == EIO)
		return false;
	if (n >= 0 && n != len)
		errno = ENODATA;
	if (n != len)
		die(path);
	return true;
}

static void compare(const char *path, off_t start, const char *got, const char *expected, off_t len)
{
	off_t i, first = len, differ = 0, zeros = 0;
	static int told;

	if (!memcmp(got, expected, len))
		return;
	for (i = 0; i < len; i++) {
		if (got[i] == expected[i])
			continue;
		first = first < i ? first : i;
		differ++;
		zeros += !got[i];
	}
	wrong += differ;
	if (told++ < ENOUGH)
		printf("%s: wrong byte at %lld: expected %02x, got %02x; in its block %lld are wrong, %lld of them zero\n",
		       path, (long long)(start + first), (unsigned char)expected[first],
		       (unsigned char)got[first], (long long)differ, (long long)zeros);
}

static void each_block(const char *path, const char *truth_path, bool by_holes)
{
	static char got[BLOCK], expected[BLOCK];
	off_t size, truth_size, start, len;
	int fd = open_file(path, &size), truth = -1;

	if (truth_path) {
		truth = open_file(truth_path, &truth_size);
		if (truth_size != size) {
			errno = EFBIG;
			die(path);
		}
	}
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM))
		die(path);
	for (start = 0; start < size; start += len) {
		len = size - start < BLOCK ? size - start : BLOCK;
		if (by_holes ? !is_present(fd, path, start, start + len) :
			       !read_block(fd, path, got, start, len)) {
			missing++;
			continue;
		}
		present++;
		if (!truth_path)
			continue;
		if (by_holes && !read_block(fd, path, got, start, len))
			die(path);
		if (pread(truth, expected, len, start) != len)
			die(truth_path);
		compare(path, start, got, expected, len);
	}
	close(fd);
	if (truth >= 0)
		close(truth);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	bool count = !strcmp(verb, "count"), by_holes = count || !strcmp(verb, "compare");
	int i;

	if ((!by_holes && strcmp(verb, "read")) || argc < 3 || (!count && argc % 2)) {
		fprintf(stderr, "usage: blocks count FILE... | {compare|read} FILE TRUTH...\n");
		return 2;
	}
	for (i = 2; i < argc; i += count ? 1 : 2)
		each_block(argv[i], count ? NULL : argv[i + 1], by_holes);
	if (count)
		printf("%llu\n", present);
	else
		printf("present %llu, missing %llu, wrong %llu\n", present, missing, wrong);
	return wrong != 0;
}
