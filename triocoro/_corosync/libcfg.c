/* libcfg: its callback, and the calls whose results need a correction. */
#include "shim.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void tc_on_shutdown(uint64_t handle, uint32_t flags)
{
	(void)handle;
	(void)tc_arena_add(tc_current, TC_SHUTDOWN, flags, 0, 0);
}

void tc_open_cfg(void *argument)
{
	struct tc_connection *out = argument;
	tc_cfg_callbacks_t callbacks = {.shutdown = tc_on_shutdown};

	out->function = "corosync_cfg_initialize";
	out->code = corosync_cfg_initialize(&out->handle, &callbacks);
}

/* Add a record for each link. */
int tc_cfg_ring_status(uint64_t handle, struct tc_arena *arena)
{
	char **names, **states, *bytes;
	unsigned int count, i;
	int code = corosync_cfg_ring_status_get(handle, &names, &states, &count);

	if (code != TC_CS_OK) {
		return code;
	}
	for (i = 0; i < count; i++) {
		size_t name_length = strlen(names[i]), state_length = strlen(states[i]);

		bytes = tc_arena_add(arena, TC_RING_STATUS, 0, name_length, name_length + state_length);
		if (bytes == NULL) {
			code = TC_CS_NO_MEMORY;
		} else {
			bytes = tc_put(bytes, names[i], name_length);
			(void)tc_put(bytes, states[i], state_length);
		}
		free(names[i]);
		free(states[i]);
	}
	free(names);
	free(states);
	return code;
}

/* Store at most `room` addresses; those that the library does not fill in are 0. */
int tc_cfg_get_node_addrs(uint64_t handle, uint32_t nodeid, uint32_t room, int *count,
	tc_cfg_node_address_t *addresses)
{
	int code;

	if (tc_stack_is_shallow()) {
		return TC_SHALLOW;
	}
	memset(addresses, 0, room * sizeof *addresses);
	*count = 0;
	code = corosync_cfg_get_node_addrs(handle, nodeid, room, count, addresses);
	if (*count < 0 || *count > (int)room) {
		*count = (int)room;
	}
	return code;
}

/* Without a reply, the library returns what happens to be on its stack. */
int tc_cfg_kill_node(uint64_t handle, int fd, uint32_t nodeid, const char *reason)
{
	int code = corosync_cfg_kill_node(handle, nodeid, reason);

	return code != TC_MISSING && tc_hung_up(fd) ? TC_CS_LIBRARY : code;
}

/* Finalize a handle after corosync_cfg_replyto_shutdown, which leaks a reference to it, so that corosync_cfg_finalize does
 * not disconnect. Closing its socket makes the daemon release its side; our mapping of the ring buffers stays.
 */
int tc_cfg_finalize_replied(uint64_t handle, int fd)
{
	struct stat before, after;
	int known = fstat(fd, &before) == 0;
	int code = corosync_cfg_finalize(handle);

	/* A library that has disconnected has closed `fd`, and another thread may have opened it anew. */
	if (known && fstat(fd, &after) == 0 && before.st_dev == after.st_dev && before.st_ino == after.st_ino) {
		(void)shutdown(fd, SHUT_RDWR);
		(void)close(fd);
	}
	return code;
}
