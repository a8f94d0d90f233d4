/*
 * A member of a process group in C, of which the tests know that no line of triocoro is behind it.
 *
 *     peer GROUP
 *
 * It joins, and sends back whatever others send. On stdout it tells, a line each:
 *
 *     joined PID
 *     members COUNT               on each change of the membership, the first (its own) included
 *     got SENDER-PID SIZE CRC32   of each message of another member
 *     left                        once its own leave has been delivered
 *
 * When its stdin ends it leaves, and exits with 0 if all went well.
 */
#include <corosync/cpg.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct echo {
	struct echo *next;
	size_t size;
	char payload[];
};

/* To be sent from the main loop, since a large message takes round trips, which do not belong into a callback. */
static struct echo *first, **last = &first;
static unsigned int own_nodeid;
static uint32_t own_pid;
static int joined, left;

static void check(cs_error_t error, const char *what)
{
	if (error != CS_OK) {
		fprintf(stderr, "peer: %s: error %d\n", what, error);
		exit(1);
	}
}

static uint32_t crc32_of(const unsigned char *data, size_t size)
{
	uint32_t crc = 0xffffffff;

	while (size--) {
		crc ^= *data++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *payload,
		    size_t size)
{
	struct echo *echo;

	(void)handle, (void)group;
	if (nodeid == own_nodeid && pid == own_pid)
		return;
	printf("got %" PRIu32 " %zu %08" PRIx32 "\n", pid, size, crc32_of(payload, size));
	echo = malloc(sizeof *echo + size);
	if (!echo)
		abort();
	echo->next = NULL;
	echo->size = size;
	memcpy(echo->payload, payload, size);
	*last = echo;
	last = &echo->next;
}

static void change(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members,
		   size_t member_count, const struct cpg_address *gone, size_t gone_count,
		   const struct cpg_address *come, size_t come_count)
{
	(void)handle, (void)group, (void)members, (void)come, (void)come_count;
	if (!joined)
		printf("joined %" PRIu32 "\n", own_pid);
	joined = 1;
	printf("members %zu\n", member_count);
	for (size_t i = 0; i < gone_count; i++)
		left |= gone[i].nodeid == own_nodeid && gone[i].pid == own_pid;
}

static void send_back(cpg_handle_t handle, const struct echo *echo)
{
	/* In two pieces, as a program that has a header and a body would. */
	size_t half = echo->size / 2;
	struct iovec pieces[2] = {
		{ .iov_base = (void *)echo->payload, .iov_len = half },
		{ .iov_base = (void *)(echo->payload + half), .iov_len = echo->size - half },
	};
	cs_error_t error;

	while ((error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, pieces, 2)) == CS_ERR_TRY_AGAIN)
		poll(NULL, 0, 1);
	check(error, "cpg_mcast_joined");
}

int main(int argc, char **argv)
{
	cpg_model_v1_data_t callbacks = { .cpg_deliver_fn = deliver, .cpg_confchg_fn = change };
	struct cpg_name group;
	struct pollfd fds[2] = { { .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
	cpg_handle_t handle;

	if (argc != 2 || strlen(argv[1]) > CPG_MAX_NAME_LENGTH) {
		fprintf(stderr, "usage: peer GROUP\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	group.length = strlen(argv[1]);
	memcpy(group.value, argv[1], group.length);
	own_pid = getpid();

	check(cpg_model_initialize(&handle, CPG_MODEL_V1, (cpg_model_data_t *)&callbacks, NULL), "cpg_model_initialize");
	check(cpg_local_get(handle, &own_nodeid), "cpg_local_get");
	check(cpg_fd_get(handle, &fds[0].fd), "cpg_fd_get");
	check(cpg_join(handle, &group), "cpg_join");
	while (!left) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			abort();
		if (fds[0].revents)
			check(cpg_dispatch(handle, CS_DISPATCH_ALL), "cpg_dispatch");
		while (first) {
			struct echo *echo = first;

			first = echo->next;
			if (!first)
				last = &first;
			send_back(handle, echo);
			free(echo);
		}
		if (fds[1].revents && joined) {
			char rest[256];

			if (read(STDIN_FILENO, rest, sizeof rest) <= 0) {
				check(cpg_leave(handle, &group), "cpg_leave");
				fds[1].fd = -1;
			}
		}
	}
	printf("left\n");
	check(cpg_finalize(handle), "cpg_finalize");
	return 0;
}
