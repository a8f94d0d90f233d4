/* libcpg: what is told, and what more than one call of the library. */
#ifndef TC_LIBCPG_H
#define TC_LIBCPG_H

#include <sys/statvfs.h>

#include "iteration.h"

/* --- what is told --- */

static void tc_on_deliver(uint64_t handle, const tc_cpg_name_t *group, uint32_t nodeid, uint32_t pid, void *message,
	size_t length)
{
	char *bytes = tc_arena_add(tc_current, TC_MESSAGE, 0, tc_who(nodeid, pid), length);

	(void)handle;
	(void)group;
	if (bytes != NULL) {
		(void)tc_put(bytes, message, length);
	}
}

static void tc_on_confchg(uint64_t handle, const tc_cpg_name_t *group, const tc_cpg_address_t *members,
	size_t members_count, const tc_cpg_address_t *left, size_t left_count, const tc_cpg_address_t *joined,
	size_t joined_count)
{
	uint32_t counts[2] = {(uint32_t)left_count, (uint32_t)joined_count};
	char *bytes = tc_arena_add(tc_current, TC_CONFCHG, (uint32_t)members_count, 0,
		sizeof counts + (members_count + left_count + joined_count) * sizeof *members);

	(void)handle;
	(void)group;
	if (bytes != NULL) {
		bytes = tc_put(bytes, counts, sizeof counts);
		bytes = tc_put(bytes, members, members_count * sizeof *members);
		bytes = tc_put(bytes, left, left_count * sizeof *left);
		(void)tc_put(bytes, joined, joined_count * sizeof *joined);
	}
}

static void tc_on_totem_confchg(uint64_t handle, tc_cpg_ring_id_t ring_id, uint32_t count, const uint32_t *members)
{
	(void)handle;
	tc_arena_add_ring(TC_TOTEM, count, ring_id.nodeid, ring_id.seq, members, count);
}

static void tc_open_cpg(void *pointer)
{
	struct tc_connection *out = pointer;
	tc_cpg_model_v1_data_t data = {.model = TC_CPG_MODEL_V1, .deliver = tc_on_deliver, .confchg = tc_on_confchg,
		.totem_confchg = tc_on_totem_confchg, .flags = out->flags};

	out->function = "cpg_model_initialize";
	out->code = cpg_model_initialize(&out->handle, TC_CPG_MODEL_V1, (tc_cpg_model_data_t *)&data, NULL);
	if (out->code == TC_CS_OK) {
		out->function = "cpg_max_atomic_msgsize_get";
		out->code = cpg_max_atomic_msgsize_get(out->handle, &out->max_message_size);
	}
}

/* --- multicasting --- */

/* Whether the notification socket has room for at least 200 requests more; when it is full, libqb spins. */
static int tc_has_room(int fd)
{
	struct pollfd entry = {.fd = fd, .events = POLLOUT};

	return poll(&entry, 1, 0) > 0;
}

/* Send `count` messages that lie one after the other in `data`. Returns sent << 32 | code of the last attempt. */
static int64_t tc_cpg_multicast(uint64_t handle, int fd, const char *data, const uint32_t *lengths, uint32_t count)
{
	struct iovec buffer = {.iov_base = (void *)data};
	uint32_t sent = 0;
	int code = TC_CS_OK;

	if (tc_table.cpg_mcast_joined == NULL) {
		return (uint32_t)TC_MISSING;
	}
	if (!tc_has_room(fd)) {
		return (uint32_t)TC_FULL;
	}
	while (sent < count) {
		buffer.iov_len = lengths[sent];
		code = cpg_mcast_joined(handle, TC_CPG_TYPE_AGREED, &buffer, 1);
		if (code != TC_CS_OK) {
			break;
		}
		buffer.iov_base = (char *)buffer.iov_base + lengths[sent];
		sent++;
	}
	return (int64_t)((uint64_t)sent << 32 | (uint32_t)code);
}

/* Send one message above the atomic size, by round trips. */
static int tc_cpg_multicast_fragmented(uint64_t handle, int fd, const char *data, uint64_t length)
{
	struct iovec buffer = {.iov_base = (void *)data, .iov_len = length};
	int code = cpg_mcast_joined(handle, TC_CPG_TYPE_AGREED, &buffer, 1);

	/* On a connection that breaks halfway the library reports the code of an earlier reply, such as CS_OK. */
	return code != TC_MISSING && tc_hung_up(fd) ? TC_CS_LIBRARY : code;
}

/* --- buffers that the daemon sees, too --- */

struct tc_allocation {
	uint64_t handle;
	int fd;
	uint64_t size;
	void *buffer;
	int code;
	int error;            /* TC_UNREACHABLE: an errno, */
	const char *function; /* and the function that failed */
};

static void tc_zcb_alloc(void *pointer)
{
	struct tc_allocation *job = pointer;
	struct statvfs shared;

	/* The library ends the process if there is no room for the file through which it shares the memory. */
	if (statvfs("/dev/shm", &shared) != 0 ||
	    (shared.f_blocks != 0 && shared.f_bavail * shared.f_frsize < job->size + 64 * 1024)) {
		job->code = TC_CS_NO_SPACE;
		return;
	}
	job->code = cpg_zcb_alloc(job->handle, job->size, &job->buffer);
}

/* cpg_zcb_alloc in the namespaces of `pidfd`, or in our own if it is negative: the daemon opens the file by its path, and
 * aborts if it cannot.
 */
static int tc_cpg_zcb_alloc(int pidfd, struct tc_allocation *job)
{
	struct tc_visit visit = {.pidfd = pidfd, .function = tc_zcb_alloc, .argument = job};

	job->function = "cpg_zcb_alloc";
	/* A dead daemon would leave us a file that nobody removes. */
	if (tc_hung_up(job->fd)) {
		return job->code = TC_CS_LIBRARY;
	}
	if (pidfd < 0) {
		tc_zcb_alloc(job);
	} else if (tc_visit_namespaces(&visit) != 0) {
		job->function = visit.failed;
		job->error = visit.error;
		job->code = TC_UNREACHABLE;
	}
	return job->code;
}

/* Where the daemon is gone, the library leaves the memory mapped: headers of its own, at the start of a page, and then
 * the buffer. (A version that does not map at all never fails here.)
 */
static int tc_cpg_zcb_free(uint64_t handle, void *buffer, uint64_t size)
{
	uintptr_t start = (uintptr_t)buffer & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
	int code = cpg_zcb_free(handle, buffer);

	if (code != TC_CS_OK && code != TC_CS_TRY_AGAIN) {
		(void)munmap((void *)start, (uintptr_t)buffer + size - start);
	}
	return code;
}

/* Waits for the daemon in some versions, and is a plain multicast in others. */
static int tc_cpg_zcb_mcast_joined(uint64_t handle, int fd, void *buffer, uint64_t length)
{
	return tc_has_room(fd) ? cpg_zcb_mcast_joined(handle, TC_CPG_TYPE_AGREED, buffer, length) : TC_CS_TRY_AGAIN;
}

#endif
