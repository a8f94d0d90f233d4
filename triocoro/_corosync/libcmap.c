/* libcmap: its callback, trackers in turn, and reading values. */
#include "shim.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

static void tc_on_cmap(uint64_t handle, uint64_t track, int32_t event, const char *key,
	tc_cmap_notify_value_t new_value, tc_cmap_notify_value_t old_value, void *user_data)
{
	uint32_t header[4] = {new_value.type, old_value.type, (uint32_t)strlen(key), (uint32_t)new_value.len};
	/* Not `track`: the library knows that only from the reply, which notifications may overtake. */
	char *bytes = tc_arena_add(tc_current, TC_CMAP_CHANGE, (uint32_t)event, (uintptr_t)user_data,
		sizeof header + header[2] + new_value.len + old_value.len);

	(void)handle;
	(void)track;
	if (bytes != NULL) {
		bytes = tc_put(bytes, header, sizeof header);
		bytes = tc_put(bytes, key, header[2]);
		bytes = tc_put(bytes, new_value.data, new_value.len);
		(void)tc_put(bytes, old_value.data, old_value.len);
	}
}

void tc_open_cmap(void *argument)
{
	struct tc_connection *out = argument;

	out->function = "cmap_initialize_map";
	out->code = cmap_initialize_map(&out->handle, out->flags);
}

/* --- trackers --- */

/* The library keeps the trackers of all connections in one table, which has no lock. With handles (creation.c) we can see
 * when a call is done with its table; here we cannot. But a call needs the table for microseconds only, and the rest of
 * its time it waits for its daemon. So callers take turns, and a turn that has lasted for TC_TURN is taken to be waiting
 * for a frozen daemon, and no longer excludes others.
 */
#define TC_TURN (100 * 1000 * 1000) /* ns */

static pthread_mutex_t tc_turn_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t tc_turns;     /* how many turns have begun */
static int tc_turn_over = 1;  /* whether the last of them has ended */
static int64_t tc_turn_began; /* when it began, in ns */

/* Wait for a turn. Returns its number. */
static uint64_t tc_begin_turn(void)
{
	const struct timespec pause = {.tv_nsec = 50 * 1000};
	struct timespec now;
	uint64_t turn = 0;
	int64_t ns;

	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
		pthread_mutex_lock(&tc_turn_lock);
		if (tc_turn_over || ns - tc_turn_began > TC_TURN) {
			turn = ++tc_turns;
			tc_turn_over = 0;
			tc_turn_began = ns;
		}
		pthread_mutex_unlock(&tc_turn_lock);
		if (turn != 0) {
			return turn;
		}
		nanosleep(&pause, NULL);
	}
}

static void tc_end_turn(uint64_t turn)
{
	pthread_mutex_lock(&tc_turn_lock);
	tc_turn_over |= turn == tc_turns;
	pthread_mutex_unlock(&tc_turn_lock);
}

int tc_cmap_track_add(uint64_t handle, const char *key, int32_t events, uint64_t tracker, uint64_t *track)
{
	uint64_t turn = tc_begin_turn();
	int code = cmap_track_add(handle, key, events, tc_on_cmap, (void *)(uintptr_t)tracker, track);

	tc_end_turn(turn);
	return code;
}

int tc_cmap_track_delete(uint64_t handle, uint64_t track)
{
	uint64_t turn = tc_begin_turn();
	int code = cmap_track_delete(handle, track);

	tc_end_turn(turn);
	return code;
}

int tc_cmap_finalize(uint64_t handle)
{
	uint64_t turn = tc_begin_turn();
	int code = cmap_finalize(handle);

	tc_end_turn(turn);
	return code;
}

/* On a notification for a tracker that was deleted meanwhile, the library drops it and says CS_ERR_BAD_HANDLE. */
int tc_cmap_dispatch(uint64_t handle, uint32_t how)
{
	int code = cmap_dispatch(handle, how);
	int fd;

	return code == TC_CS_BAD_HANDLE && cmap_fd_get(handle, &fd) == TC_CS_OK ? TC_CS_OK : code;
}

/* --- reading --- */

/* Read a value. `length` is the size of the buffer, then that of the value.
 *
 * The buffer must never be empty, nor smaller than a string of the statistics: the daemon does not check, and would crash.
 * For the statistics of a link that no longer exists it reports CS_ERR_LIBRARY, although the connection is intact.
 */
int tc_cmap_get(uint64_t handle, int fd, const char *key, char *value, size_t *length, uint32_t *type)
{
	int code = cmap_get(handle, key, value, length, type);

	return code == TC_CS_LIBRARY && !tc_hung_up(fd) ? TC_CS_NOT_EXIST : code;
}

/* Read a value whose length was `length` a moment ago. */
static int tc_cmap_get_again(uint64_t handle, int fd, const char *key, char *value, size_t *length, uint32_t *type)
{
	/* The daemon sends the whole buffer that it is offered, so offer no more than necessary. For strings of the
	 * statistics it reports a length of 0.
	 */
	size_t room = *length > 0 && *length < TC_CMAP_ROOM ? *length : TC_CMAP_ROOM;
	int code;

	*length = room;
	code = tc_cmap_get(handle, fd, key, value, length, type);
	if (code == TC_CS_INVALID_PARAM && room < TC_CMAP_ROOM) {
		/* The value has grown. */
		*length = TC_CMAP_ROOM;
		code = tc_cmap_get(handle, fd, key, value, length, type);
	}
	return code;
}

/* Add a record for each key that begins with `prefix`. A key that is deleted during the iteration is left out. */
int tc_cmap_items(uint64_t handle, int fd, const char *prefix, struct tc_arena *arena, const char **function)
{
	char value[TC_CMAP_ROOM];
	char key[512];
	char *bytes;
	uint64_t iteration;
	size_t length, key_length;
	uint32_t type;
	int code;

	*function = "cmap_iter_init";
	code = cmap_iter_init(handle, prefix, &iteration);
	if (code != TC_CS_OK) {
		return code == TC_CS_NO_SECTIONS ? TC_CS_OK : code;
	}
	for (;;) {
		*function = "cmap_iter_next";
		code = cmap_iter_next(handle, iteration, key, &length, &type);
		if (code != TC_CS_OK) {
			break;
		}
		*function = "cmap_get";
		code = tc_cmap_get_again(handle, fd, key, value, &length, &type);
		if (code == TC_CS_NOT_EXIST) {
			continue;
		}
		if (code != TC_CS_OK) {
			break;
		}
		key_length = strlen(key);
		bytes = tc_arena_add(arena, TC_CMAP_ITEM, type, key_length, key_length + length);
		if (bytes == NULL) {
			code = TC_CS_NO_MEMORY;
			break;
		}
		bytes = tc_put(bytes, key, key_length);
		(void)tc_put(bytes, value, length);
	}
	(void)cmap_iter_finalize(handle, iteration);
	return code == TC_CS_NO_SECTIONS ? TC_CS_OK : code;
}
