// SPDX-License-Identifier: GPL-2.0
/*
 * Who reads, and who takes the caches away: readers compare every byte with what it
 * must be; the rotator unmounts images, empties their cache files and mounts them
 * again, so that there is always something to miss; the dropper drops page caches.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "stress.h"

#define MARK "user.CacheFiles.cache"
#define READ_MAX (512 * 1024)

/* --- readers ---------------------------------------------------------------------------- */

static struct actor *self;
static unsigned char *buffer;

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static unsigned char expected(unsigned int number, uint64_t offset)
{
	return content(number, offset / 8) >> offset % 8 * 8;
}

/* Says of the first wrong byte where it is, and of the range how much of it is wrong. */
static void tell_wrong(const struct file *file, uint64_t offset, size_t len, const char *how)
{
	uint64_t first = len, wrong = 0, zeros = 0;
	size_t i;

	for (i = 0; i < len; i++) {
		if (buffer[i] == expected(file->number, offset + i))
			continue;
		first = first < i ? first : i;
		wrong++;
		zeros += !buffer[i];
	}
	shared->wrong++;
	violation("wrong byte: image %d %s offset %llu: expected %02x, got %02x (%s of %zu bytes at %llu: %llu wrong, %llu of them zero)",
		  self->image, file->path, (unsigned long long)(offset + first),
		  expected(file->number, offset + first), buffer[first], how, len,
		  (unsigned long long)offset, (unsigned long long)wrong, (unsigned long long)zeros);
}

static void compare(const struct file *file, uint64_t offset, size_t len, const char *how)
{
	uint64_t word;
	size_t i = 0;

	for (; i < len && (offset + i) % 8; i++)
		if (buffer[i] != expected(file->number, offset + i))
			return tell_wrong(file, offset, len, how);
	for (; i + 8 <= len; i += 8) {
		memcpy(&word, buffer + i, 8);
		if (word != content(file->number, (offset + i) / 8))
			return tell_wrong(file, offset, len, how);
	}
	for (; i < len; i++)
		if (buffer[i] != expected(file->number, offset + i))
			return tell_wrong(file, offset, len, how);
	shared->read_bytes += len;
}

/* Reads the range until all of it was read right; errors are tried again. */
static void read_range(int fd, const struct file *file, int image, uint64_t offset, size_t len)
{
	uint64_t begun;
	ssize_t n;

	len = min(len, file->size - offset);
	while (len) {
		begun = now_ms();
		begin(self, "pread", image, file->number, offset, len);
		n = pread(fd, buffer, len, offset);
		end(self);
		if (n < 0) {
			note_error(self, begun, errno);
			sleep_ms(20);
			continue;
		}
		if (n == 0 || (size_t)n > len) {
			violation("read %zd of %zu bytes at %llu of file %u", n, len,
				  (unsigned long long)offset, file->number);
			return;
		}
		compare(file, offset, n, "pread");
		offset += n;
		len -= n;
	}
	shared->reads++;
}

static sigjmp_buf bus_error;

static void on_bus_error(int signal)
{
	(void)signal;
	siglongjmp(bus_error, 1);
}

static void read_mapped(int fd, const struct file *file, int image, uint64_t offset, size_t len)
{
	uint64_t start = offset / BLOCK * BLOCK;
	volatile uint64_t begun;
	unsigned char *map;

	len = min(len, file->size - offset);
	map = mmap(NULL, offset - start + len, PROT_READ, MAP_SHARED, fd, start);
	if (map == MAP_FAILED)
		die("cannot map a file");
	while (sigsetjmp(bus_error, 1)) {
		end(self);
		note_error(self, begun, EIO);
		sleep_ms(20);
	}
	begun = now_ms();
	begin(self, "mapping", image, file->number, offset, len);
	memcpy(buffer, map + (offset - start), len);
	end(self);
	compare(file, offset, len, "mapping");
	munmap(map, offset - start + len);
	shared->mapped_reads++;
}

static int open_file(const struct file *file, int image, const char *path)
{
	uint64_t begun;
	int fd;

	for (;;) {
		begun = now_ms();
		begin(self, "open", image, file->number, 0, 0);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		end(self);
		if (fd >= 0)
			return fd;
		note_error(self, begun, errno);
		sleep_ms(20);
	}
}

static bool must_leave(int image)
{
	return shared->stop || shared->wanted[image];
}

static void read_some(uint64_t *r, const struct file *file, int image, int fd)
{
	int times = 1 + rnd_below(r, 8);
	uint64_t offset, len;

	posix_fadvise(fd, 0, 0, one_in(r, 2) ? POSIX_FADV_RANDOM : POSIX_FADV_NORMAL);
	while (times-- && !must_leave(image)) {
		offset = rnd_below(r, file->size);
		if (one_in(r, 2))
			offset = offset / BLOCK * BLOCK;
		len = 1 + rnd_below(r, one_in(r, 8) ? READ_MAX : 8 * BLOCK);
		if (one_in(r, 8))
			posix_fadvise(fd, offset, len, POSIX_FADV_DONTNEED);
		if (one_in(r, 3))
			read_mapped(fd, file, image, offset, len);
		else
			read_range(fd, file, image, offset, len);
	}
}

static void read_whole(const struct file *file, int image, int fd)
{
	uint64_t offset;

	for (offset = 0; offset < file->size && !must_leave(image); offset += READ_MAX / 4)
		read_range(fd, file, image, offset, READ_MAX / 4);
}

void reader(struct actor *actor, uint64_t seed)
{
	struct sigaction action = { .sa_handler = on_bus_error };
	uint64_t r = seed;
	char path[1024];
	int fd, image;

	self = actor;
	buffer = malloc(READ_MAX);
	if (!buffer || sigaction(SIGBUS, &action, NULL))
		die("cannot prepare a reader");
	while (!shared->stop) {
		const struct file *file;

		image = rnd_below(&r, world.nimages);
		file = &world.images[image].files[rnd_below(&r, world.images[image].nfiles)];
		snprintf(path, sizeof(path), "%s/%s",
			 world.images[image].dirs[rnd_below(&r, TWINS)], file->path);
		pthread_rwlock_rdlock(&shared->mounted[image]);
		fd = open_file(file, image, path);
		if (one_in(&r, 16))
			read_whole(file, image, fd);
		else
			read_some(&r, file, image, fd);
		close(fd);
		pthread_rwlock_unlock(&shared->mounted[image]);
	}
	_exit(0);
}

/* --- the rotator -------------------------------------------------------------------------- */

bool mount_image(struct actor *actor, int i)
{
	const struct image *image = &world.images[i];
	char options[sizeof(image->options) + 16];
	uint64_t begun;
	int twin, error;

	for (twin = 0; twin < TWINS;) {
		/* With other options a twin is a volume of its own, with its own pages. */
		snprintf(options, sizeof(options), "%s%s", image->options, twin ? ",noacl" : "");
		begun = now_ms();
		begin(actor, "mount", i, 0, 0, 0);
		error = mount("none", image->dirs[twin], "erofs", MS_RDONLY, options) ? errno : 0;
		end(actor);
		if (!error) {
			twin++;
			continue;
		}
		note_error(actor, begun, error);
		if (error != EIO)
			return false;
	}
	return true;
}

static bool unmount_image(int i)
{
	int twin, error;

	for (twin = 0; twin < TWINS; twin++) {
		begin(&shared->rotator, "umount", i, 0, 0, 0);
		error = umount2(world.images[i].dirs[twin], 0) ? errno : 0;
		end(&shared->rotator);
		if (error) {
			violation("umount of %s: %s", world.images[i].dirs[twin], strerror(error));
			return false;
		}
	}
	return true;
}

/* A new file, all hole, in the place of the blob's. */
static void renew(const struct blob *blob)
{
	char path[1024];
	int fd;

	snprintf(path, sizeof(path), "%s/new", world.root);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, blob->size) ||
	    fsetxattr(fd, MARK, blob->mark, blob->mark_size, 0) || close(fd) ||
	    rename(path, blob->cache_file))
		die("cannot make a new cache file");
}

/* Makes a hole of some of its blocks. */
static void punch(uint64_t *r, const struct blob *blob)
{
	uint64_t offset, len, blocks = (blob->size + BLOCK - 1) / BLOCK;
	int fd = open(blob->cache_file, O_WRONLY | O_CLOEXEC), times;

	if (fd < 0)
		die("cannot open a cache file");
	for (times = 8; times--;) {
		offset = rnd_below(r, blocks);
		len = 1 + rnd_below(r, blocks - offset);
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset * BLOCK, len * BLOCK))
			die("cannot punch a cache file");
	}
	close(fd);
}

void rotator(uint64_t seed)
{
	uint64_t r = seed;
	int i, blob;

	while (!shared->stop) {
		i = rnd_below(&r, world.nimages);
		shared->wanted[i] = 1;
		pthread_rwlock_wrlock(&shared->mounted[i]);
		shared->wanted[i] = 0;
		if (!unmount_image(i))
			_exit(1);
		for (blob = 0; blob < world.images[i].nblobs; blob++)
			if (one_in(&r, 2))
				renew(&world.images[i].blobs[blob]);
			else
				punch(&r, &world.images[i].blobs[blob]);
		if (!mount_image(&shared->rotator, i))
			_exit(1);
		pthread_rwlock_unlock(&shared->mounted[i]);
		shared->rotations++;
		sleep_ms(rnd_below(&r, 300));
	}
	while (!shared->stop_rest)
		sleep_ms(20);
	_exit(0);
}

/* --- the dropper ----------------------------------------------------------------------------- */

void dropper(uint64_t seed)
{
	static const char *const levels[] = { "1", "2", "3" };
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	uint64_t r = seed;

	/* 4: no line in the kernel's log for each, from now on. */
	if (fd < 0 || pwrite(fd, "4", 1, 0) != 1)
		die("cannot drop caches");
	while (!shared->stop_rest) {
		/* Only what is clean is dropped. */
		if (one_in(&r, 4))
			sync();
		if (pwrite(fd, levels[rnd_below(&r, 3)], 1, 0) != 1)
			die("cannot drop caches");
		shared->drops++;
		sleep_ms(rnd_below(&r, 200));
	}
	_exit(0);
}
