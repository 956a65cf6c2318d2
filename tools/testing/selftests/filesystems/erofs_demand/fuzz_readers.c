// SPDX-License-Identifier: GPL-2.0
/*
 * Who suffers from the hostile daemon: readers, which compare each byte that they
 * get, and some of which are killed while they wait; a process that mounts and
 * unmounts; and one that drops caches.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz_device.h"

/* Most bytes that are read at a time. */
#define READ_MAX (512 * 1024)

static struct actor *self;
static unsigned char *buffer;

/* --- one call that may have to wait --------------------------------------- */

static void begin(const char *what, int mount, int node, uint64_t offset, uint64_t length)
{
	self->mount = mount;
	self->node = node;
	self->offset = offset;
	self->length = length;
	self->what = what;
	self->since = now_ms();
}

static void end(void)
{
	self->since = 0;
}

static void note_error(int error)
{
	shared->read_errors[error > 0 && error < 512 ? error : 0]++;
}

/* --- readers -------------------------------------------------------------- */

static const struct mount *mount_of(int m)
{
	return &world.mounts[m];
}

static void compare(int m, int n, uint64_t off, const unsigned char *got, size_t len)
{
	const struct node *node = &mount_of(m)->nodes[n];
	size_t i;

	if (!memcmp(got, node->data + off, len))
		return;
	for (i = 0; got[i] == node->data[off + i]; i++)
		;
	violation("wrong byte: %s/%s offset %llu (of a read of %zu at %llu): expected %02x, got %02x",
		  mount_of(m)->dir, node->path, (unsigned long long)(off + i), len,
		  (unsigned long long)off, node->data[off + i], got[i]);
}

static void count_read(int m, int n, uint64_t off, ssize_t got, size_t wanted)
{
	const struct node *node = &mount_of(m)->nodes[n];

	if (got < 0) {
		note_error(errno);
		return;
	}
	if (got == 0 && wanted && off < (uint64_t)node->stat.st_size) {
		violation("false end of file: %s/%s at %llu", mount_of(m)->dir, node->path,
			  (unsigned long long)off);
		return;
	}
	if (off + got > (uint64_t)node->stat.st_size) {
		violation("more than the file has: %s/%s at %llu", mount_of(m)->dir, node->path,
			  (unsigned long long)off);
		return;
	}
	compare(m, n, off, buffer, got);
	shared->reads++;
	shared->read_bytes += got;
}

static sigjmp_buf bus_error;

static void on_bus_error(int signal)
{
	(void)signal;
	siglongjmp(bus_error, 1);
}

static void read_mapped(int fd, int m, int n, uint64_t off, size_t len)
{
	const struct node *node = &mount_of(m)->nodes[n];
	uint64_t size = node->stat.st_size, start = off / BLOCK * BLOCK;
	unsigned char *map;

	if (off >= size)
		return;
	if (len > size - off)
		len = size - off;
	map = mmap(NULL, off - start + len, PROT_READ, MAP_PRIVATE, fd, start);
	if (map == MAP_FAILED)
		return;
	if (!sigsetjmp(bus_error, 1)) {
		begin("mmap", m, n, off, len);
		memcpy(buffer, map + (off - start), len);
		end();
		count("reader: mmap", true);
		count_read(m, n, off, len, len);
	} else {
		end();
		count("reader: mmap", false);
		note_error(0);
	}
	munmap(map, off - start + len);
}

static void read_ranges(uint64_t *r, int fd, int m, int n)
{
	uint64_t size = mount_of(m)->nodes[n].stat.st_size;
	int times = 1 + rnd_below(r, 8);
	uint64_t off, len;
	ssize_t got;

	while (times-- && !shared->pause) {
		off = rnd_below(r, size + 1);
		if (one_in(r, 2))
			off = off / BLOCK * BLOCK;
		len = 1 + rnd_below(r, one_in(r, 4) ? READ_MAX : 4 * BLOCK);
		switch (rnd_below(r, 8)) {
		case 0:
		case 1:
			read_mapped(fd, m, n, off, len);
			break;
		case 2:
			begin("readahead", m, n, off, len);
			count("reader: readahead", !readahead(fd, off, len));
			end();
			break;
		case 3:
			posix_fadvise(fd, off, len, POSIX_FADV_DONTNEED);
			break;
		default:
			begin("pread", m, n, off, len);
			got = pread(fd, buffer, len, off);
			end();
			count("reader: pread", got > 0);
			count_read(m, n, off, got, len);
		}
	}
}

static void read_whole(int fd, int m, int n)
{
	uint64_t off = 0;
	ssize_t got = 1;

	while (got > 0 && off < (uint64_t)mount_of(m)->nodes[n].stat.st_size && !shared->pause) {
		begin("read", m, n, off, READ_MAX / 4);
		got = read(fd, buffer, READ_MAX / 4);
		end();
		count("reader: read", got > 0);
		count_read(m, n, off, got, READ_MAX / 4);
		off += got > 0 ? got : 0;
	}
}

static void read_file(uint64_t *r, int m, int n, const char *path)
{
	int fd, advice;

	begin("open", m, n, 0, 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	end();
	if (!count("reader: open", fd >= 0)) {
		note_error(errno);
		return;
	}
	advice = one_in(r, 2) ? POSIX_FADV_RANDOM : POSIX_FADV_NORMAL;
	posix_fadvise(fd, 0, 0, advice);
	if (one_in(r, 8))
		read_whole(fd, m, n);
	else
		read_ranges(r, fd, m, n);
	close(fd);
}

/* The names of a directory are those of the tree, and all of them unless it fails. */
static void list(int m, int n, const char *path)
{
	const struct node *node = &mount_of(m)->nodes[n];
	char truth[2048];
	struct dirent *entry = NULL;
	struct stat stat;
	int names = 0, error;
	DIR *dir;

	begin("opendir", m, n, 0, 0);
	dir = opendir(path);
	end();
	if (!count("reader: list", dir)) {
		note_error(errno);
		return;
	}
	for (;;) {
		begin("readdir", m, n, 0, 0);
		errno = 0;
		entry = readdir(dir);
		end();
		if (!entry)
			break;
		snprintf(truth, sizeof(truth), "%s/%s/%s", mount_of(m)->tree, node->path, entry->d_name);
		if (lstat(truth, &stat))
			violation("wrong name: %s/%s", path, entry->d_name);
		names++;
	}
	error = errno;
	/* It may be the mount point itself, whose mount has just gone. */
	if (fstat(dirfd(dir), &stat) || stat.st_dev == world.below)
		error = ENOENT;
	if (error)
		note_error(error);
	else if (names != node->names)
		violation("%d names in place of %d: %s", names, node->names, path);
	else
		shared->lists++;
	closedir(dir);
}

static void look(int m, int n, const char *path)
{
	const struct node *node = &mount_of(m)->nodes[n];
	struct stat stat;
	int result;

	begin("stat", m, n, 0, 0);
	result = lstat(path, &stat);
	end();
	if (!count("reader: stat", !result))
		note_error(errno);
	else if (stat.st_dev != world.below && (stat.st_mode != node->stat.st_mode ||
		 (S_ISREG(stat.st_mode) && stat.st_size != node->stat.st_size)))
		violation("wrong attributes: %s", path);
}

static void reader(uint64_t seed)
{
	struct sigaction action = { .sa_handler = on_bus_error };
	uint64_t r = seed;
	char path[2048];
	int m, n;

	sigaction(SIGBUS, &action, NULL);
	while (!shared->stop) {
		if (shared->pause) {
			sleep_ms(2);
			continue;
		}
		m = rnd_below(&r, world.nmounts);
		/* What lies below the mount point is not meant. */
		if (!is_mounted(m)) {
			sleep_ms(1);
			continue;
		}
		n = rnd_below(&r, mount_of(m)->nnodes);
		snprintf(path, sizeof(path), "%s/%s", mount_of(m)->dir, mount_of(m)->nodes[n].path);
		if (one_in(&r, 4))
			look(m, n, path);
		else if (S_ISDIR(mount_of(m)->nodes[n].stat.st_mode))
			list(m, n, path);
		else if (mount_of(m)->nodes[n].data)
			read_file(&r, m, n, path);
	}
	_exit(0);
}

/* Starts a reader in the slot. */
static void spawn(struct actor *slot, uint64_t seed)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("cannot fork a reader");
	if (pid == 0) {
		die_with_parent(parent);
		self = slot;
		slot->since = 0;
		reader(seed);
	}
	slot->pid = pid;
}

static void reap(pid_t pid, int status)
{
	int i;

	for (i = 0; i < world.nreaders; i++) {
		struct actor *slot = &shared->readers[i];

		if (slot->pid != pid)
			continue;
		if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
			violation("a reader died of signal %d in %s", WTERMSIG(status), slot->what);
		slot->since = 0;
		slot->pid = 0;
	}
}

void readers(uint64_t seed)
{
	uint64_t r = seed, since;
	pid_t pid;
	int status, i;

	buffer = malloc(READ_MAX);
	/* Readers whose data is there must not keep the daemon from being hostile. */
	if (!buffer || nice(5) == -1)
		die("cannot prepare readers");
	while (!shared->stop) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			reap(pid, status);
		for (i = 0; i < world.nreaders; i++)
			if (!shared->readers[i].pid)
				spawn(&shared->readers[i], rnd(&r));
		i = rnd_below(&r, world.nreaders);
		since = shared->readers[i].since;
		/* One that waits, mostly. */
		if (since && now_ms() - since > rnd_below(&r, 200)) {
			count("kill a reader", !kill(shared->readers[i].pid, SIGKILL));
			shared->kills++;
		}
		sleep_ms(20);
	}
	for (i = 0; i < world.nreaders; i++)
		kill(shared->readers[i].pid, SIGKILL);
	_exit(0);
}

/* --- mounting ------------------------------------------------------------- */

bool is_mounted(int i)
{
	struct stat dir;

	return !stat(mount_of(i)->dir, &dir) && dir.st_dev != world.below;
}

static int wait_for_child(pid_t child, unsigned int kill_after_ms)
{
	uint64_t begun = now_ms();
	int status;

	while (waitpid(child, &status, WNOHANG) == 0) {
		if (kill_after_ms && now_ms() - begun > kill_after_ms) {
			kill(child, SIGKILL);
			kill_after_ms = 0;
		}
		sleep_ms(1);
	}
	return status;
}

bool mount_once(int i, const char *options, unsigned int kill_after_ms)
{
	pid_t parent = getpid(), child;
	int status;

	self = &shared->mounter;
	begin("mount", i, 0, 0, 0);
	child = fork();
	if (child < 0)
		die("cannot fork to mount");
	if (child == 0) {
		die_with_parent(parent);
		_exit(mount("none", mount_of(i)->dir, "erofs", MS_RDONLY, options) ? 1 : 0);
	}
	self->pid = child;
	status = wait_for_child(child, kill_after_ms);
	end();
	return status == 0;
}

static bool umount_once(int i, int flags)
{
	bool done = false;

	/* Both sides say what they are about to do and then look. */
	shared->detaching[i] = 1;
	if (!shared->pinned[i]) {
		begin("umount", i, 0, 0, 0);
		done = !umount2(mount_of(i)->dir, flags);
		end();
	}
	shared->detaching[i] = 0;
	return done;
}

static void mount_something(uint64_t *r, int i)
{
	const char *options = mount_of(i)->options;
	char odd[1024];

	if (is_mounted(i)) {
		count("remount", !mount("none", mount_of(i)->dir, "erofs", MS_REMOUNT | MS_RDONLY, ""));
		return;
	}
	switch (rnd_below(r, 8)) {
	case 0:
		snprintf(odd, sizeof(odd), "uuid=nowhere.img,tag=%s", world.tag);
		count("mount what is not there", mount_once(i, odd, 0));
		break;
	case 1:
		snprintf(odd, sizeof(odd), "%s,device=nowhere", options);
		count("mount with a device too many", mount_once(i, odd, 0));
		break;
	case 2:
		count("mount that is killed", mount_once(i, options, 1 + rnd_below(r, 50)));
		break;
	default:
		count("mount", mount_once(i, options, 0));
	}
}

void mounter(uint64_t seed)
{
	uint64_t r = seed;
	int i;

	while (!shared->stop) {
		/* Said first: whoever moors then sees either this or the rest. */
		shared->mounter.pid = getpid();
		if (shared->moored) {
			shared->mounter.pid = 0;
			sleep_ms(2);
			continue;
		}
		self = &shared->mounter;
		i = rnd_below(&r, world.nmounts);
		switch (rnd_below(&r, 8)) {
		case 0:
			count("umount", umount_once(i, 0));
			break;
		case 1:
			count("umount -l", umount_once(i, MNT_DETACH));
			break;
		case 2:
			count("umount -f", umount_once(i, MNT_FORCE));
			break;
		default:
			mount_something(&r, i);
		}
		sleep_ms(rnd_below(&r, 60));
	}
	_exit(0);
}

/* --- everything else that goes on in a machine ---------------------------- */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	count(path, write(fd, text, strlen(text)) > 0);
	close(fd);
}

static void read_all(const char *pattern)
{
	char text[4096];
	glob_t found;
	size_t i;
	int fd;

	if (glob(pattern, 0, NULL, &found))
		return;
	for (i = 0; i < found.gl_pathc; i++) {
		fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		while (read(fd, text, sizeof(text)) > 0)
			;
		close(fd);
		count(pattern, true);
	}
	globfree(&found);
}

void nuisance(uint64_t seed)
{
	static const char *const levels[] = { "1", "2", "3" };
	uint64_t r = seed;

	while (!shared->stop) {
		switch (rnd_below(&r, 4)) {
		case 0:
			write_file("/proc/sys/vm/drop_caches", levels[rnd_below(&r, 3)]);
			break;
		case 1:
			read_all("/sys/kernel/debug/cachefiles_demand/*");
			break;
		case 2:
			read_all("/proc/fs/fscache/*");
			break;
		case 3:
			if (one_in(&r, 4))
				sync();
			break;
		}
		sleep_ms(10 + rnd_below(&r, 150));
	}
	_exit(0);
}
