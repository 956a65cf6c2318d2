// SPDX-License-Identifier: GPL-2.0
/*
 * Write a range of a blob into its cache file with one pwrite(2) that does not come
 * to an end: all but the first block of what is to be written is memory that never
 * arrives. To be killed there.
 *
 * usage: stuck_write FILE BLOB OFFSET LENGTH
 *
 * Says "stuck" when it is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>
#include <linux/userfaultfd.h>

#define BLOCK CACHEFILES_DEMAND_BLOCK

static int faults;

static void die(const char *what)
{
	fprintf(stderr, "stuck_write: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Nobody brings the memory that is waited for. */
static void *tell(void *unused)
{
	struct pollfd pfd = { .fd = faults, .events = POLLIN };

	if (poll(&pfd, 1, -1) != 1)
		die("cannot wait for a fault");
	puts("stuck");
	fflush(stdout);
	pause();
	return unused;
}

/* Memory of which only the first block is there. */
static char *half_memory(size_t len)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || madvise(memory, len, MADV_NOHUGEPAGE))
		die("cannot map memory");
	memory[0] = 0;
	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (faults < 0 || ioctl(faults, UFFDIO_API, &api))
		die("userfaultfd");
	range.range.start = (unsigned long)memory + BLOCK;
	range.range.len = len - BLOCK;
	if (ioctl(faults, UFFDIO_REGISTER, &range))
		die("userfaultfd");
	return memory;
}

int main(int argc, char **argv)
{
	unsigned long long offset, len;
	pthread_t thread;
	char *memory;
	int file, blob;

	if (argc != 5) {
		fprintf(stderr, "usage: stuck_write FILE BLOB OFFSET LENGTH\n");
		return 2;
	}
	offset = strtoull(argv[3], NULL, 0);
	len = strtoull(argv[4], NULL, 0);
	file = open(argv[1], O_WRONLY);
	blob = open(argv[2], O_RDONLY);
	if (file < 0 || blob < 0)
		die("cannot open the files");
	memory = half_memory(len);
	if (pread(blob, memory, BLOCK, offset) != BLOCK)
		die("cannot read the blob");
	if (pthread_create(&thread, NULL, tell, NULL))
		die("cannot start a thread");
	pwrite(file, memory, len, offset);
	die("the write came to an end");
}
