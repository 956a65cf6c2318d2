// SPDX-License-Identifier: GPL-2.0
/*
 * The promises of include/uapi/linux/cachefiles_demand.h that hold without a
 * mount, kept to by the compiler and by the running kernel.
 *
 * usage: abi CACHE-ROOT
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/cachefiles_demand.h>

_Static_assert(sizeof(struct cachefiles_demand_req) == 280, "size of a record");
_Static_assert(offsetof(struct cachefiles_demand_req, id) == 0, "offset of id");
_Static_assert(offsetof(struct cachefiles_demand_req, off) == 8, "offset of off");
_Static_assert(offsetof(struct cachefiles_demand_req, len) == 16, "offset of len");
_Static_assert(offsetof(struct cachefiles_demand_req, path) == 24, "offset of path");

static int count, failed;

static void check(const char *what, long got, long wanted)
{
	if (got != wanted) {
		printf("# got %ld, wanted %ld\n", got, wanted);
		failed++;
	}
	printf("%s %d %s\n", got == wanted ? "ok" : "not ok", ++count, what);
}

/* What write(2) says to a command: its result, or the error as a negative. */
static long command_bytes(int fd, const char *text, size_t size)
{
	ssize_t n = write(fd, text, size);

	return n < 0 ? -errno : n;
}

static long command(int fd, const char *text)
{
	return command_bytes(fd, text, strlen(text));
}

static long try_open(void)
{
	int fd = open(CACHEFILES_DEMAND_DEVICE, O_RDWR);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static long try_open_as_nobody(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(setuid(65534) ? 255 : -try_open());
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return 1;
	return -WEXITSTATUS(status);
}

static const struct {
	const char *text;
	int wanted;	/* 0: all of it is taken */
} before_bind[] = {
	{ "nonsense", -EOPNOTSUPP },
	{ "DIR /", -EOPNOTSUPP },
	{ "", -EINVAL },
	{ "\n", -EINVAL },
	{ "bind", -EINVAL },
	{ "dir", -EINVAL },
	{ "dir relative/path", -EINVAL },
	{ "tag", -EINVAL },
	{ "done 1", -EINVAL },
	{ "fail 1 5", -EINVAL },
	{ "tag abi", 0 },
	{ "tag abi", -EEXIST },
}, after_bind[] = {
	{ "bind", -EBUSY },
	{ "dir /", -EBUSY },
	{ "tag other", -EBUSY },
	{ "done", -EINVAL },
	{ "done 1", -EINVAL },
	{ "done -1", -EINVAL },
	{ "done 0x1", -EINVAL },
	{ "done 18446744073709551615", -EINVAL },
	{ "done 18446744073709551616", -EINVAL },
	{ "done 1 2", -EINVAL },
	{ "fail 1", -EINVAL },
	{ "fail 1 0", -EINVAL },
	{ "fail 1 4096", -EINVAL },
	{ "fail 1 -5", -EINVAL },
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static void check_command(int fd, const char *text, int wanted)
{
	char what[128];

	snprintf(what, sizeof(what), "'%s' %s", text[0] == '\n' ? "newline" : text,
		 wanted ? "is refused" : "is taken");
	check(what, command(fd, text), wanted ? wanted : (long)strlen(text));
}

int main(int argc, char **argv)
{
	struct cachefiles_demand_req records[2];
	static char big[CACHEFILES_DEMAND_COMMAND_MAX + 2];
	char dir[CACHEFILES_DEMAND_COMMAND_MAX];
	struct pollfd pfd = { .events = POLLIN };
	size_t i;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: %s CACHE-ROOT\n", argv[0]);
		return 1;
	}
	printf("KTAP version 1\n1..%zu\n",
	       13 + ARRAY_SIZE(before_bind) + ARRAY_SIZE(after_bind));

	check("only the privileged may open the device", try_open_as_nobody(), -EACCES);
	fd = open(CACHEFILES_DEMAND_DEVICE, O_RDWR);
	check("the device can be opened", fd >= 0, 1);
	check("by one at a time", try_open(), -EBUSY);

	check("before a cache is bound nothing can be read",
	      read(fd, records, sizeof(records)), 0);
	errno = 0;
	read(fd, records, sizeof(records[0]) - 1);
	check("a buffer too small for a record is refused", errno, EMSGSIZE);
	pfd.fd = fd;
	check("poll agrees that there is nothing", poll(&pfd, 1, 0), 0);

	for (i = 0; i < ARRAY_SIZE(before_bind); i++)
		check_command(fd, before_bind[i].text, before_bind[i].wanted);
	check("a NUL byte in a command is refused",
	      command_bytes(fd, "dir /\0x", 7), -EINVAL);
	memset(big, 'x', sizeof(big) - 1);
	memcpy(big, "tag ", 4);
	check("a command that is too long is refused", command(fd, big), -EINVAL);

	snprintf(dir, sizeof(dir), "dir %s\n", argv[1]);
	check("dir is taken, with its newline", command(fd, dir), strlen(dir));
	check("bind is taken", command(fd, "bind"), 4);
	for (i = 0; i < ARRAY_SIZE(after_bind); i++)
		check_command(fd, after_bind[i].text, after_bind[i].wanted);

	check("a bound cache without readers has no requests",
	      read(fd, records, sizeof(records)), 0);
	close(fd);
	fd = open(CACHEFILES_DEMAND_DEVICE, O_RDWR);
	check("the next daemon can open the device", fd >= 0, 1);
	check("and starts anew", command(fd, "bind"), -EINVAL);
	return failed ? 1 : 0;
}
