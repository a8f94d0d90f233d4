/* gcc connect-closes-twice.c -lqb: the closes of one socket. Needs no cluster: this process listens itself.
 *
 * send() and close() here take the place of libc's in libqb as well.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <qb/qbipcc.h>

static int failed_on = -1, closes;

ssize_t send(int fd, const void *data, size_t length, int flags)
{
	(void)data, (void)length, (void)flags;
	failed_on = fd;
	errno = EPIPE;
	return -1;
}

int close(int fd)
{
	closes += fd == failed_on;
	return (int)syscall(SYS_close, fd);
}

int main(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0closes-twice"};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	/* libqb connects to an abstract name that is padded with NULs */
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1) != 0) {
		perror("listen");
		return 2;
	}
	if (qb_ipcc_connect("closes-twice", 8192) != NULL || failed_on < 0) {
		puts("the connect did not get as far as its first message");
		return 2;
	}
	printf("fd %d was closed %d times\n", failed_on, closes);
	return closes > 1;
}
