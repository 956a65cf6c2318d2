// SPDX-License-Identifier: GPL-2.0
/*
 * Calls on a descriptor of /dev/cachefiles_demand that no daemon should make: odd
 * sizes, memory that is not there, calls of other kinds of files.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz_daemon.h"

/* Whether the result of an odd read makes sense; what was delivered is forgotten. */
static void check_odd_read(ssize_t got, size_t size)
{
	if (got < 0)
		return;
	if ((size_t)got > size || got % RECORD)
		violation("a read of %zu bytes gave %zd", size, got);
	if (size < RECORD)
		violation("a read of %zu bytes was taken", size);
}

void odd_read(struct thread *t)
{
	static const size_t sizes[] = { 0, 1, 279, 280, 281, 559, 560, 4096, COMMAND_ROOM, 1 << 30 };
	size_t size = pick(t, sizes);
	long page = sysconf(_SC_PAGESIZE);
	char *end = t->edge + 2 * page;
	int fd = some_fd(t);
	struct iovec parts[3];
	ssize_t n;

	switch (below(t, 7)) {
	case 0:
		n = read(fd, (void *)pick(t, ((uintptr_t[]){ 0, 8, 0xffff888000000000, UINTPTR_MAX - 100, 1ULL << 47 })),
			 size);
		count("read to a bad pointer", n > 0);
		if (n > 0)
			violation("a read of %zu bytes to nowhere gave %zd", size, n);
		return;
	case 1:
		n = read(fd, end, size);
		count("read to a page that cannot be touched", n > 0);
		if (n > 0)
			violation("a read of %zu bytes to a bad page gave %zd", size, n);
		return;
	case 2:
		size = RECORD + below(t, 4 * RECORD);
		n = read(fd, end - below(t, size), size);
		count("read to memory that is partly bad", n > 0);
		check_odd_read(n, size);
		return;
	case 3:
		parts[0] = (struct iovec){ t->buffer, below(t, 600) };
		parts[1] = (struct iovec){ t->buffer + 4096, below(t, 600) };
		parts[2] = (struct iovec){ chance(t, 2) ? end : t->buffer + 8192, below(t, 600) };
		count("readv", readv(fd, parts, 1 + below(t, 3)) > 0);
		return;
	case 4:
		n = pread(fd, t->buffer, size < COMMAND_ROOM ? size : COMMAND_ROOM, rnd(&t->rnd));
		count("pread", n > 0);
		return;
	default:
		n = size > COMMAND_ROOM ? 0 : read(fd, t->buffer, size);
		count("read of an odd size", n > 0);
		check_odd_read(n, size);
	}
}

void odd_write(struct thread *t)
{
	long page = sysconf(_SC_PAGESIZE);
	int n = make_command(t, below(t, number_of_words)), fd = some_fd(t), cut = n > 1 ? below(t, n) : 0;
	char *end = t->edge + 2 * page;
	struct iovec parts[2];
	ssize_t written;

	begin_upheaval();
	switch (below(t, 6)) {
	case 0:
		count("write in two", write(fd, t->buffer, cut) >= 0);
		written = write(fd, t->buffer + cut, n - cut);
		break;
	case 1:
		parts[0] = (struct iovec){ t->buffer, cut };
		parts[1] = (struct iovec){ t->buffer + cut, n - cut };
		written = writev(fd, parts, 2);
		count("writev", written > 0);
		break;
	case 2:
		written = pwrite(fd, t->buffer, n, rnd(&t->rnd) >> 1);
		count("pwrite", written > 0);
		break;
	case 3:
		if (cut > 2 * page)
			cut = 2 * page;
		memcpy(end - cut, t->buffer, cut);
		written = write(fd, end - cut, cut + 1);
		if (count("write from memory that is partly bad", written > 0))
			violation("a command that cannot be read was taken");
		break;
	case 4:
		written = write(fd, (void *)pick(t, ((uintptr_t[]){ 0, 8, 0xffff888000000000, UINTPTR_MAX - 100 })),
				1 + below(t, 5000));
		if (count("write from a bad pointer", written > 0))
			violation("a command from nowhere was taken");
		break;
	default:
		written = write(fd, t->buffer, 0);
		count("write of nothing", written >= 0);
	}
	end_upheaval();
}

void wait_oddly(struct thread *t)
{
	static const uint32_t events[] = {
		EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT, EPOLLIN | EPOLLOUT | EPOLLET,
		EPOLLOUT, EPOLLIN | EPOLLEXCLUSIVE, EPOLLPRI | EPOLLRDHUP, 0,
	};
	struct epoll_event event = { .events = pick(t, events) };
	struct pollfd fds[2] = { { .fd = some_fd(t), .events = POLLIN | POLLOUT }, { .fd = t->epoll, .events = POLLIN } };
	int fd = some_fd(t);

	event.data.fd = fd;
	switch (below(t, 8)) {
	case 0:
		count("epoll add", !epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &event));
		break;
	case 1:
		count("epoll mod", !epoll_ctl(t->epoll, EPOLL_CTL_MOD, fd, &event));
		break;
	case 2:
		count("epoll del", !epoll_ctl(t->epoll, EPOLL_CTL_DEL, fd, &event));
		break;
	case 3:
	case 4:
		count("epoll wait", epoll_wait(t->epoll, &event, 1, below(t, 10)) > 0);
		break;
	case 5:
		close(t->epoll);
		t->epoll = epoll_create1(EPOLL_CLOEXEC);
		count("epoll close", t->epoll >= 0);
		break;
	default:
		count("poll", poll(fds, 1 + below(t, 2), below(t, 10)) > 0);
	}
}

/* Calls that the device was not made for. */
void odd_call(struct thread *t)
{
	int fd = some_fd(t), pipes[2];
	off_t offset = below(t, 1000);
	bool done = false;
	void *map;

	switch (below(t, 10)) {
	case 0:
		done = !ioctl(fd, rnd(&t->rnd), t->buffer);
		break;
	case 1:
		done = lseek(fd, rnd(&t->rnd), below(t, 6)) >= 0;
		break;
	case 2:
		map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, chance(t, 2) ? MAP_SHARED : MAP_PRIVATE, fd, 0);
		if (map != MAP_FAILED)
			munmap(map, 4096);
		break;
	case 3:
		done = !ftruncate(fd, below(t, 10000)) || !fallocate(fd, 0, 0, 4096) || !fsync(fd);
		break;
	case 4:
		done = !fcntl(fd, F_SETFL, chance(t, 2) ? O_NONBLOCK : O_ASYNC | O_APPEND);
		break;
	case 5:
		done = !flock(fd, LOCK_EX | LOCK_NB);
		break;
	case 6:
		done = sendfile(fd, fd, &offset, 4096) > 0;
		break;
	case 7:
		if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
			break;
		done = write(pipes[1], "done 1", 6) == 6 && splice(pipes[0], NULL, fd, NULL, 6, SPLICE_F_NONBLOCK) > 0;
		splice(fd, NULL, pipes[1], NULL, 4096, SPLICE_F_NONBLOCK);
		close(pipes[0]);
		close(pipes[1]);
		break;
	case 8:
		done = copy_file_range(fd, NULL, fd, NULL, 4096, 0) > 0;
		break;
	default:
		done = !fchdir(fd);
	}
	count("call that does not fit", done);
}

/*
 * A daemon that hands the kernel memory which only a daemon can fill: bytes of a
 * file on a mount that it serves. It can be killed.
 */
void wait_for_itself(struct thread *t)
{
	int m = below(t, world.nmounts), n = below(t, world.mounts[m].nnodes), fd = some_fd(t), file, status;
	const struct node *node = &world.mounts[m].nodes[n];
	pid_t parent = getpid(), child;
	char path[2048], *map;

	if (!node->data || node->stat.st_size < BLOCK)
		return;
	/* The last one to use a mount that is gone ends it, and that waits for the daemon, too. */
	shared->pinned[m]++;
	if (shared->detaching[m] || !is_mounted(m)) {
		shared->pinned[m]--;
		return;
	}
	child = fork();
	if (child == 0) {
		die_with_parent(parent);
		snprintf(path, sizeof(path), "%s/%s", world.mounts[m].dir, node->path);
		file = open(path, O_RDONLY);
		map = file < 0 ? MAP_FAILED :
				 mmap(NULL, node->stat.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
		if (map == MAP_FAILED)
			_exit(1);
		map += below(t, node->stat.st_size / BLOCK) * BLOCK;
		/* What is read is delivered, to nobody. */
		_exit(chance(t, 2) ? write(fd, map, 100) < 0 : read(fd, map, RECORD) < 0);
	}
	if (child > 0) {
		sleep_ms(below(t, 20));
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		count("wait for itself", WIFEXITED(status));
	}
	shared->pinned[m]--;
}
