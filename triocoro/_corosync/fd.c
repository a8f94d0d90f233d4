/* What the fd of a connection tells, which depends on how the daemon is configured to talk to its clients.
 *
 * - Shared memory (system.qb_ipc_type: shm, the default): it is a stream socket, which has a byte for each event that waits
 *   in the ring, and hangs up when the daemon closes its end.
 * - Sockets (system.qb_ipc_type: socket): it is a datagram socket, which has the events themselves. It never hangs up: the
 *   socket that does is known to libqb only, which looks at it when it dispatches.
 */
#include "shim.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

int tc_is_datagram(int fd)
{
	int type = 0;
	socklen_t length = sizeof type;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_DGRAM;
}

/* The size in bytes of the largest datagram that the socket can send. The daemon's own socket has the same bound. */
int tc_max_datagram(int fd)
{
	int size = 0;
	socklen_t length = sizeof size;

	/* The kernel keeps 32 bytes of the buffer to itself. */
	return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &length) == 0 ? size - 32 : 0;
}

/* Whether nothing is bound any more to the address that a datagram socket is connected to. Connecting to the same socket
 * again changes nothing; a socket that is gone refuses it, or has been removed.
 */
static int tc_peer_is_gone(int fd)
{
	struct sockaddr_un peer;
	socklen_t length = sizeof peer;

	return getpeername(fd, (struct sockaddr *)&peer, &length) == 0 &&
		connect(fd, (struct sockaddr *)&peer, length) != 0 && (errno == ECONNREFUSED || errno == ENOENT);
}

/* Whether the daemon's end of the connection with this fd is closed. */
int tc_hung_up(int fd)
{
	struct pollfd entry = {.fd = fd, .events = POLLIN};

	if (poll(&entry, 1, 0) == 1 && (entry.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
		return 1;
	}
	return tc_is_datagram(fd) && tc_peer_is_gone(fd);
}

/* End the connection with this fd for both sides. The handle remains, and is finalized later. */
void tc_hang_up(int fd)
{
	shutdown(fd, SHUT_RDWR);
}

/* How many events wait. The kernel does not count datagrams, but lets us peek at one after the other: a peek begins as
 * many bytes behind the start of the queue as SO_PEEK_OFF says. Nothing else may read from the fd meanwhile.
 */
int tc_waiting(int fd)
{
	int count = 0, offset = 0, off = -1;
	char byte;
	ssize_t length;

	if (!tc_is_datagram(fd)) {
		return ioctl(fd, FIONREAD, &count) == 0 ? count : 0;
	}
	while (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0) {
		length = recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
		if (length <= 0) {
			break;
		}
		offset += (int)length;
		count++;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
	return count;
}
