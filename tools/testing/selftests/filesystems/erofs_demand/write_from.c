// SPDX-License-Identifier: GPL-2.0
/*
 * Write a block from a mapping of one file to another file.
 *
 * usage: write_from FROM OFFSET TO POSITION
 *
 * The bytes are those of FROM from OFFSET on, and go to POSITION of TO. Nothing has read
 * them before: that is left to the write.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK 4096

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	void *bytes;

	if (argc != 5) {
		fprintf(stderr, "usage: %s FROM OFFSET TO POSITION\n", argv[0]);
		return 2;
	}
	bytes = mmap(NULL, BLOCK, PROT_READ, MAP_PRIVATE, open_file(argv[1], O_RDONLY), atoll(argv[2]));
	if (bytes == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	/* Only this block. */
	madvise(bytes, BLOCK, MADV_RANDOM);
	if (pwrite(open_file(argv[3], O_WRONLY), bytes, BLOCK, atoll(argv[4])) != BLOCK) {
		perror("pwrite");
		return 1;
	}
	return 0;
}
