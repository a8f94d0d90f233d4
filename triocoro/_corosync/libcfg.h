/* libcfg: what is told, and calls that need looking after. */
#ifndef TC_LIBCFG_H
#define TC_LIBCFG_H

#include <sys/socket.h>
#include <sys/stat.h>

static void tc_on_shutdown(uint64_t handle, uint32_t flags)
{
	(void)handle;
	(void)tc_arena_add(tc_current, TC_SHUTDOWN, flags, 0, 0);
}

static void tc_open_cfg(void *pointer)
{
	struct tc_connection *out = pointer;
	tc_cfg_callbacks_t callbacks = {.shutdown = tc_on_shutdown};

	out->function = "corosync_cfg_initialize";
	out->code = corosync_cfg_initialize(&out->handle, &callbacks);
}

/* The names and states of the links. */
static int tc_cfg_ring_status(uint64_t handle, struct tc_arena *arena)
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

/* At most `room` addresses; those that the library does not fill in stay 0. */
static int tc_cfg_get_node_addrs(uint64_t handle, uint32_t nodeid, uint32_t room, int *count,
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

/* Where the reply is missing, the library returns whatever was on its stack. */
static int tc_cfg_kill_node(uint64_t handle, int fd, uint32_t nodeid, const char *reason)
{
	int code = corosync_cfg_kill_node(handle, nodeid, reason);

	return code != TC_MISSING && tc_hung_up(fd) ? TC_CS_LIBRARY : code;
}

/* corosync_cfg_replyto_shutdown keeps a reference to the handle, so that finalizing it does not disconnect. The least to
 * be done is to close the socket, upon which the daemon gives up its side; our mapping of the rings stays.
 */
static int tc_cfg_finalize_replied(uint64_t handle, int fd)
{
	struct stat before, after;
	int known = fstat(fd, &before) == 0;
	int code = corosync_cfg_finalize(handle);

	if (known && fstat(fd, &after) == 0 && before.st_dev == after.st_dev && before.st_ino == after.st_ino) {
		(void)shutdown(fd, SHUT_RDWR);
		(void)close(fd);
	}
	return code;
}

#endif
