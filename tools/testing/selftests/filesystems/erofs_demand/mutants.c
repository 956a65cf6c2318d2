// SPDX-License-Identifier: GPL-2.0
/*
 * Mount images that may be damaged, one after the other, look at everything in
 * them, and unmount them.
 *
 * usage: mutants [OPTION]... MOUNT-POINT OUT IMAGE...
 *
 *   --jobs N      so many at a time; MOUNT-POINT is a folder with folders 0, 1...
 *   --seconds S   after so long, one hangs
 *   --options O   for mount(2) of files: the devices
 *   --block O     for mount(2) of loop devices
 *   --pages       no file that ends within a page: a loop device instead
 *   --uuid        IMAGE is the name of a blob in a cache
 *
 * The name of an image is its number. Even ones are mounted as files, odd ones as
 * loop devices. Lines of number, path, item and answer, separated by tabs, go to
 * the file OUT.JOB, for each job. The status is 1 if an image hangs: then it stays
 * mounted, and nothing more is tried.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mutants.h"

static const char *options = "", *block_options = "";
static unsigned int seconds = 10;
static int is_uuid, only_pages;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

/* A loop device for the image, which goes with its last user. */
static int attach(const char *image, char *device)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR };
	int file, control, loop = -1, number, i;

	file = open(image, O_RDONLY | O_CLOEXEC);
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (file < 0 || control < 0)
		die(image);
	config.fd = file;
	for (i = 0; i < 1000; i++) {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0)
			die("loop-control");
		sprintf(device, "/dev/loop%d", number);
		loop = open(device, O_RDONLY | O_CLOEXEC);
		if (loop >= 0 && !ioctl(loop, LOOP_CONFIGURE, &config))
			break;
		/* Another job has it. */
		if (loop >= 0)
			close(loop);
		loop = -1;
		usleep(1000);
	}
	if (loop < 0)
		die("no loop device");
	close(file);
	close(control);
	return loop;
}

/* Mount the image, and tell how it went: 0 or an error. */
static int try_mount(const char *image, const char *number, const char *point)
{
	char source[PATH_MAX], device[32];
	const char *devices = options;
	int loop = -1, error = 0;
	struct stat st;

	if (is_uuid) {
		char all[PATH_MAX];

		snprintf(all, sizeof(all), "uuid=%s%s%s", number, *options ? "," : "", options);
		return mount("none", point, "erofs", MS_RDONLY, all) ? errno : 0;
	}
	snprintf(source, sizeof(source), "%s", image);
	if (stat(image, &st))
		die(image);
	if (strtoull(number, NULL, 10) % 2 || (only_pages && st.st_size % 4096)) {
		/* By this name, the log tells which image it is about. */
		devices = block_options;
		loop = attach(image, device);
		snprintf(source, sizeof(source), "%s.device", image);
		unlink(source);
		if (symlink(device, source))
			die(source);
	}
	if (mount(source, point, "erofs", MS_RDONLY, devices))
		error = errno;
	if (loop >= 0)
		close(loop);
	return error;
}

static void try_image(FILE *out, const char *image, const char *point)
{
	char *copy = strdup(image);
	const char *number = basename(copy);
	int error = try_mount(image, number, point);

	fprintf(out, "%s\t-\tmount\t%s\n", number, error ? error_name(error) : "0");
	if (!error) {
		walk(out, number, point);
		if (umount(point)) {
			fprintf(out, "%s\t-\tumount\t%s\n", number, error_name(errno));
			umount2(point, MNT_DETACH);
		}
	}
	if (fflush(out))
		die("writing");
	free(copy);
}

/* True if the child ended by itself in time, and well. */
static int ended(pid_t child)
{
	struct timespec limit = { .tv_sec = seconds };
	sigset_t set;
	int status;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigtimedwait(&set, NULL, &limit) < 0)
		return 0;
	return waitpid(child, &status, 0) == child && !status;
}

/* Every so many of the images, in a child each. */
static int run_job(int job, int jobs, const char *points, const char *name, char **images)
{
	char point[PATH_MAX], path[PATH_MAX];
	sigset_t set;
	FILE *out;
	int i;

	snprintf(point, sizeof(point), "%s/%d", points, job);
	snprintf(path, sizeof(path), "%s.%d", name, job);
	out = fopen(path, "ae");
	if (!out)
		die(path);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (i = 0; images[i]; i++) {
		pid_t child;

		if (i % jobs != job)
			continue;
		child = fork();
		if (child < 0)
			die("fork");
		if (!child) {
			try_image(out, images[i], point);
			_exit(0);
		}
		if (ended(child))
			continue;
		fprintf(stderr, "mutants: %s: hangs, or crashed\n", images[i]);
		kill(child, SIGKILL);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "jobs", required_argument, NULL, 'j' },
		{ "seconds", required_argument, NULL, 's' },
		{ "options", required_argument, NULL, 'o' },
		{ "block", required_argument, NULL, 'b' },
		{ "pages", no_argument, NULL, 'p' },
		{ "uuid", no_argument, NULL, 'u' },
		{ }
	};
	int jobs = 1, option, job, status, failed = 0;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case 'j':
			jobs = atoi(optarg);
			break;
		case 's':
			seconds = atoi(optarg);
			break;
		case 'o':
			options = optarg;
			break;
		case 'b':
			block_options = optarg;
			break;
		case 'p':
			only_pages = 1;
			break;
		case 'u':
			is_uuid = 1;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind < 3 || jobs < 1) {
		fprintf(stderr, "usage: mutants [OPTION]... MOUNT-POINT OUT IMAGE...\n");
		return 2;
	}
	argv += optind;
	for (job = 0; job < jobs; job++) {
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child)
			exit(run_job(job, jobs, argv[0], argv[1], argv + 2));
	}
	while (wait(&status) > 0)
		failed |= status;
	return !!failed;
}
