/* libcmap: what is told, whose turn it is to touch the trackers, and a listing in one crossing. */
#ifndef TC_LIBCMAP_H
#define TC_LIBCMAP_H

/* A value has 16 KiB at most, and a text a NUL behind that. */
#define TC_CMAP_ROOM (16 * 1024 + 64)

static void tc_on_cmap(uint64_t handle, uint64_t track, int32_t event, const char *key,
	tc_cmap_notify_value_t new_value, tc_cmap_notify_value_t old_value, void *user_data)
{
	uint32_t header[4] = {new_value.type, old_value.type, (uint32_t)strlen(key), (uint32_t)new_value.len};
	/* Not `track`: the library knows it only after the reply, which notifications may overtake. */
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

static void tc_open_cmap(void *pointer)
{
	struct tc_connection *out = pointer;

	out->function = "cmap_initialize_map";
	out->code = cmap_initialize_map(&out->handle, out->flags);
}

/* --- trackers --- */

/* The library keeps the trackers of all connections in one table, which like the others of libqb has no lock. Unlike
 * those (see creation.h) nothing tells when a call is past the table, except that it either is within no time, or waits
 * for its daemon. So one caller at a time, and who has had its turn for TC_TURN waits for a daemon that is frozen.
 */
#define TC_TURN (100 * 1000 * 1000)

static pthread_mutex_t tc_turn_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t tc_turns;     /* how many there have been; the last of them is under way, or */
static int tc_turn_over = 1;  /* over */
static int64_t tc_turn_began; /* in ns */

/* Returns the number of the turn. */
static uint64_t tc_turn_begins(void)
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

static void tc_turn_ends(uint64_t turn)
{
	pthread_mutex_lock(&tc_turn_lock);
	tc_turn_over |= turn == tc_turns;
	pthread_mutex_unlock(&tc_turn_lock);
}

static int tc_cmap_track_add(uint64_t handle, const char *key, int32_t events, uint64_t tracker, uint64_t *track)
{
	uint64_t turn = tc_turn_begins();
	int code = cmap_track_add(handle, key, events, tc_on_cmap, (void *)(uintptr_t)tracker, track);

	tc_turn_ends(turn);
	return code;
}

static int tc_cmap_track_delete(uint64_t handle, uint64_t track)
{
	uint64_t turn = tc_turn_begins();
	int code = cmap_track_delete(handle, track);

	tc_turn_ends(turn);
	return code;
}

static int tc_cmap_finalize(uint64_t handle)
{
	uint64_t turn = tc_turn_begins();
	int code = cmap_finalize(handle);

	tc_turn_ends(turn);
	return code;
}

/* A notification of a tracker that was deleted meanwhile is taken, and then the library says that the handle is bad. */
static int tc_cmap_dispatch(uint64_t handle, uint32_t how)
{
	int code = cmap_dispatch(handle, how);
	int fd;

	return code == TC_CS_BAD_HANDLE && cmap_fd_get(handle, &fd) == TC_CS_OK ? TC_CS_OK : code;
}

/* --- reading --- */

/* `length`: the room, then what of it is filled.
 *
 * The room must never be 0, nor less than a text of the statistics needs: the daemon does not look, and would crash. For
 * the statistics of a link that has gone it reports CS_ERR_LIBRARY, although the connection is in order.
 */
static int tc_cmap_get(uint64_t handle, int fd, const char *key, char *value, size_t *length, uint32_t *type)
{
	int code = cmap_get(handle, key, value, length, type);

	return code == TC_CS_LIBRARY && !tc_hung_up(fd) ? TC_CS_NOT_EXIST : code;
}

/* Like tc_cmap_get, with a value whose length was `length` when it was last looked at. */
static int tc_cmap_get_again(uint64_t handle, int fd, const char *key, char *value, size_t *length, uint32_t *type)
{
	/* The daemon fills and sends all the room that it is offered. 0 is what it says of the texts of the statistics. */
	size_t room = *length > 0 && *length < TC_CMAP_ROOM ? *length : TC_CMAP_ROOM;
	int code;

	*length = room;
	code = tc_cmap_get(handle, fd, key, value, length, type);
	if (code == TC_CS_INVALID_PARAM && room < TC_CMAP_ROOM) {
		/* It has grown. */
		*length = TC_CMAP_ROOM;
		code = tc_cmap_get(handle, fd, key, value, length, type);
	}
	return code;
}

/* All keys that begin with `prefix`, and their values. */
static int tc_cmap_items(uint64_t handle, int fd, const char *prefix, struct tc_arena *arena, const char **function)
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

#endif
