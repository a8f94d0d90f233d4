/* libcpg: its callbacks, multicasting, and zero-copy buffers. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- callbacks --- */

static void tc_on_deliver(uint64_t handle, const tc_cpg_name_t *group, uint32_t nodeid, uint32_t pid, void *message,
	size_t length)
{
	char *bytes;

	(void)handle;
	(void)group;
	if (length >= TC_HUGE) {
		tc_arena_add_huge(tc_current, tc_client(nodeid, pid), message, length);
		return;
	}
	bytes = tc_arena_add(tc_current, TC_MESSAGE, 0, tc_client(nodeid, pid), length);
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

void tc_open_cpg(void *argument)
{
	struct tc_connection *out = argument;
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

/* Whether the notification socket has room for at least 200 requests. When it is full, libqb spins. */
static int tc_has_room(int fd)
{
	struct pollfd entry = {.fd = fd, .events = POLLOUT};

	return poll(&entry, 1, 0) > 0;
}

/* Send `count` messages that lie one after the other in `data`.
 *
 * Returns how many were sent, in the upper 32 bits, and the code of the last attempt in the lower ones. Both in one
 * integer, because a second result would need an out parameter, for which Python would allocate memory at each call; and
 * this is the call that every message goes through.
 */
int64_t tc_cpg_multicast(uint64_t handle, int fd, const char *data, const uint32_t *lengths, uint32_t count)
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

/* Send one message above the atomic size, which takes round trips to the daemon. */
int tc_cpg_multicast_fragmented(uint64_t handle, int fd, const char *data, uint64_t length)
{
	struct iovec buffer = {.iov_base = (void *)data, .iov_len = length};
	int code = cpg_mcast_joined(handle, TC_CPG_TYPE_AGREED, &buffer, 1);

	/* When the connection breaks halfway, the library returns the code of an earlier reply, such as CS_OK. */
	return code != TC_MISSING && tc_hung_up(fd) ? TC_CS_LIBRARY : code;
}

/* --- zero-copy buffers, which are shared with the daemon --- */

/* Make a file as the library does, and map it. Returns 0, or the errno of what has failed. */
static int tc_rehearse(size_t size)
{
	char path[] = "/dev/shm/triocoro-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	int error;
	void *memory;

	if (fd == -1) {
		return errno;
	}
	(void)unlink(path);
	error = posix_fallocate(fd, 0, (off_t)size);
	if (error == 0) {
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (memory == MAP_FAILED) {
			error = errno;
		} else {
			(void)munmap(memory, size);
		}
	}
	(void)close(fd);
	return error;
}

static void tc_zcb_alloc(void *argument)
{
	struct tc_allocation *allocation = argument;

	/* The library aborts the process if it cannot make the file through which the memory is shared. */
	allocation->error = tc_rehearse(allocation->size + 64 * 1024);
	if (allocation->error != 0) {
		allocation->code = TC_LACKING;
		return;
	}
	allocation->code = cpg_zcb_alloc(allocation->handle, allocation->size, &allocation->buffer);
}

/* Call cpg_zcb_alloc in the namespaces of `pidfd`, or in our own if it is negative: the daemon opens the file by its path,
 * and aborts if it cannot. Returns allocation->code.
 */
int tc_cpg_zcb_alloc(int pidfd, struct tc_allocation *allocation)
{
	struct tc_namespace_call call = {.pidfd = pidfd, .function = tc_zcb_alloc, .argument = allocation};
	struct tc_opening opening;

	allocation->function = "cpg_zcb_alloc";
	/* It is the daemon that removes the file, so do not create one for a daemon that is dead. */
	if (tc_hung_up(allocation->fd)) {
		return allocation->code = TC_CS_LIBRARY;
	}
	allocation->error = tc_begin_opening(&opening);
	if (allocation->error != 0) {
		allocation->function = "socket";
		allocation->code = TC_LACKING;
	} else if (pidfd < 0) {
		tc_zcb_alloc(allocation);
	} else if (tc_call_in_namespaces(&call) != 0) {
		allocation->function = call.failed;
		allocation->error = call.error;
		allocation->code = TC_UNREACHABLE;
	}
	tc_end_opening(&opening);
	return allocation->code;
}

/* Once the daemon is gone, the library leaves the memory mapped: a header of its own, at the start of a page, and then the
 * buffer. (A version that maps no memory never fails here.)
 */
int tc_cpg_zcb_free(uint64_t handle, void *buffer, uint64_t size)
{
	uintptr_t start = (uintptr_t)buffer & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
	int code = cpg_zcb_free(handle, buffer);

	if (code != TC_CS_OK && code != TC_CS_TRY_AGAIN) {
		(void)munmap((void *)start, (uintptr_t)buffer + size - start);
	}
	return code;
}

/* In some versions a round trip to the daemon, in others a plain multicast. */
int tc_cpg_zcb_mcast_joined(uint64_t handle, int fd, void *buffer, uint64_t length)
{
	return tc_has_room(fd) ? cpg_zcb_mcast_joined(handle, TC_CPG_TYPE_AGREED, buffer, length) : TC_CS_TRY_AGAIN;
}
