/* What libqb's clean-up does to file descriptors, and how to prevent it.
 *
 * If libqb cannot create the socket of a connection, it closes fd 0, after shutdown(2) on it. Over sockets instead of
 * shared memory it also closes fd 0 when a later step fails, for example because the daemon dies meanwhile. So the
 * library is not called unless there are descriptors for all that it opens, and fd 0 is put back if it is missing
 * afterwards. Another thread may still take the last descriptors just before the library does.
 *
 * If libqb cannot map a ring, it leaves the descriptor of its file open. So it must have room for all of its mappings.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a call opens at the same time, at most: its socket and the two files of a ring, or its socket and two more. */
#define TC_DESCRIPTORS 3

/* The address space of a connection: three rings of 1 MiB, which are mapped twice each, and a buffer of that size. */
#define TC_ADDRESS_SPACE (8 * 1024 * 1024)

static unsigned tc_callers; /* how many threads are in such a call */

static int tc_are_free(unsigned wanted)
{
	struct rlimit limit;
	int fd;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
		return 1;
	}
	/* Descriptors are given out from the lowest one on, so the highest ones are free while there are many. */
	for (fd = limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX; fd > 0 && wanted > 0; fd--) {
		if (fcntl(fd - 1, F_GETFD) == -1) {
			wanted--;
		}
	}
	return wanted == 0;
}

/* Why a library could not open what it needs to connect: an errno, or 0. `callers` need descriptors. */
static int tc_shortage(unsigned callers)
{
	int fd;

	if (!tc_are_free(callers * TC_DESCRIPTORS)) {
		return EMFILE;
	}
	/* The whole system may lack them, or this process may be forbidden to create such a socket. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1) {
		return errno;
	}
	(void)close(fd);
	return 0;
}

/* Prepare for a call that opens descriptors. Returns 0, or the errno that it would run into. */
int tc_begin_opening(struct tc_opening *opening)
{
	unsigned callers = __atomic_add_fetch(&tc_callers, 1, __ATOMIC_SEQ_CST);

	opening->flags = fcntl(0, F_GETFD);
	opening->first = opening->flags == -1 ? -1 : fcntl(0, F_DUPFD_CLOEXEC, 3);
	if (opening->flags != -1 && opening->first == -1) {
		return EMFILE;
	}
	return tc_shortage(callers);
}

/* Put fd 0 back if it is missing. To be called after each `tc_begin_opening`, whatever it has returned. */
void tc_end_opening(struct tc_opening *opening)
{
	__atomic_sub_fetch(&tc_callers, 1, __ATOMIC_SEQ_CST);
	if (opening->first == -1) {
		return;
	}
	if (fcntl(0, F_GETFD) == -1) {
		(void)dup3(opening->first, 0, opening->flags & FD_CLOEXEC ? O_CLOEXEC : 0);
	}
	(void)close(opening->first);
}

/* Whether the address space that a connection takes can be had. Sets errno if not. */
int tc_has_address_space(void)
{
	void *space = mmap(NULL, TC_ADDRESS_SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (space == MAP_FAILED) {
		return 0;
	}
	(void)munmap(space, TC_ADDRESS_SPACE);
	return 1;
}

/* Why no descriptor can be had at present: an errno, or 0. */
int tc_no_descriptor(void)
{
	return tc_shortage(1);
}
