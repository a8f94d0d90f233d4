/* Tests of the shim against functions of our own in place of the libraries', for situations that real ones rarely cause.
 *
 * Linked with the units of the shim, with --wrap for two functions. Run with the name of a part; a failure is an assertion.
 */
#undef NDEBUG
#include "shim.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- no clock that can be set --- */

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

/* The linker makes the shim call this one. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	assert(clock == CLOCK_MONOTONIC);
	return __real_clock_gettime(clock, now);
}

/* --- a thread that is faster than its creator --- */

static int created, under_way;

static void wait_for(const int *event)
{
	const struct timespec moment = {.tv_nsec = 100 * 1000};

	while (!__atomic_load_n(event, __ATOMIC_SEQ_CST)) {
		nanosleep(&moment, NULL);
	}
}

int __real_pthread_sigmask(int how, const sigset_t *mask, sigset_t *before);
int __wrap_pthread_sigmask(int how, const sigset_t *mask, sigset_t *before);

/* The linker makes the shim call this one. Restoring the mask is the creator's last call before it looks at whether the
 * thread was created: delay it until the thread is under way.
 */
int __wrap_pthread_sigmask(int how, const sigset_t *mask, sigset_t *before)
{
	if (before == NULL) {
		__atomic_store_n(&created, 1, __ATOMIC_SEQ_CST);
		wait_for(&under_way);
	}
	return __real_pthread_sigmask(how, mask, before);
}

/* --- trackers: one thread at a time in their table --- */

static int inside;

static void visit_table(void)
{
	const struct timespec moment = {.tv_nsec = 100 * 1000};

	assert(__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) == 1);
	nanosleep(&moment, NULL);
	__atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
}

static uint32_t track_add(uint64_t handle, const char *key, int32_t events, tc_cmap_notify_t notify, void *user_data,
	uint64_t *track)
{
	(void)handle, (void)key, (void)events, (void)notify, (void)user_data;
	visit_table();
	*track = 1;
	return TC_CS_OK;
}

static uint32_t track_delete(uint64_t handle, uint64_t track)
{
	(void)handle, (void)track;
	visit_table();
	return TC_CS_OK;
}

static uint32_t finalize(uint64_t handle)
{
	(void)handle;
	visit_table();
	return TC_CS_OK;
}

static void *use_trackers(void *unused)
{
	uint64_t track;
	int i;

	for (i = 0; i < 50; i++) {
		assert(tc_cmap_track_add(1, "key", 0, 1, &track) == TC_CS_OK);
		assert(tc_cmap_track_delete(1, track) == TC_CS_OK);
		assert(tc_cmap_finalize(1) == TC_CS_OK);
	}
	return unused;
}

static void trackers(void)
{
	pthread_t threads[8];
	int i;

	tc_table.cmap_track_add = track_add;
	tc_table.cmap_track_delete = track_delete;
	tc_table.cmap_finalize = finalize;
	for (i = 0; i < 8; i++) {
		assert(pthread_create(&threads[i], NULL, use_trackers, NULL) == 0);
	}
	for (i = 0; i < 8; i++) {
		assert(pthread_join(threads[i], NULL) == 0);
	}
}

/* --- a listing while the map changes --- */

static const char *const keys[] = {"first", "deleted", "grown", "unknown length", "link that has gone", "last"};
static const char *broken; /* the key that cannot be read */
static unsigned int position;
static int iterations;
static int nothing;

static uint32_t iter_init(uint64_t handle, const char *prefix, uint64_t *iteration)
{
	(void)handle, (void)prefix;
	if (nothing) {
		return TC_CS_NO_SECTIONS;
	}
	position = 0;
	*iteration = ++iterations;
	return TC_CS_OK;
}

static uint32_t iter_next(uint64_t handle, uint64_t iteration, char key[], size_t *length, uint32_t *type)
{
	(void)handle, (void)iteration;
	if (position == sizeof keys / sizeof *keys) {
		return TC_CS_NO_SECTIONS;
	}
	strcpy(key, keys[position++]);
	*length = strcmp(key, "unknown length") == 0 ? 0 : 1;
	*type = 12;
	return TC_CS_OK;
}

static uint32_t get(uint64_t handle, const char *key, void *value, size_t *length, uint32_t *type)
{
	size_t needed = strcmp(key, "grown") == 0 ? 9 : strcmp(key, "unknown length") == 0 ? TC_CMAP_ROOM : 1;

	(void)handle;
	/* The daemon would write all that it has. */
	assert(*length >= needed || strcmp(key, "grown") == 0);
	if (strcmp(key, "deleted") == 0) {
		return TC_CS_NOT_EXIST;
	}
	if (strcmp(key, "link that has gone") == 0) {
		return TC_CS_LIBRARY;
	}
	if (broken != NULL && strcmp(key, broken) == 0) {
		return TC_CS_NO_MEMORY;
	}
	if (*length < needed) {
		return TC_CS_INVALID_PARAM;
	}
	memset(value, 'v', *length);
	*length = strcmp(key, "grown") == 0 ? 9 : 1;
	*type = 12;
	return TC_CS_OK;
}

static uint32_t iter_finalize(uint64_t handle, uint64_t iteration)
{
	(void)handle;
	assert(iteration == (uint64_t)iterations);
	iterations--;
	return TC_CS_OK;
}

static void listing(void)
{
	struct tc_arena *arena = tc_arena_new();
	const char *function;
	uint32_t i;
	int ends[2];

	tc_table.cmap_iter_init = iter_init;
	tc_table.cmap_iter_next = iter_next;
	tc_table.cmap_iter_finalize = iter_finalize;
	tc_table.cmap_get = get;
	assert(pipe(ends) == 0);
	assert(tc_cmap_items(1, ends[0], "", arena, &function) == TC_CS_OK);
	for (i = 0; i < arena->count; i++) {
		const struct tc_record *record = &arena->records[i];

		printf("%.*s: %d\n", (int)record->extra, arena->data + record->offset,
			(int)(record->length - record->extra));
	}
	assert(iterations == 0);

	broken = "last";
	assert(tc_cmap_items(1, ends[0], "", arena, &function) == TC_CS_NO_MEMORY);
	assert(strcmp(function, "cmap_get") == 0);
	assert(iterations == 0);

	nothing = 1;
	assert(tc_cmap_items(1, ends[0], "", arena, &function) == TC_CS_OK);

	/* With the connection gone, what was a link that has gone is an error. */
	nothing = 0;
	close(ends[1]);
	assert(tc_cmap_items(1, ends[0], "", arena, &function) == TC_CS_LIBRARY);
	assert(iterations == 0);
	tc_arena_free(arena);
}

/* --- an iteration whose thread is faster than its creator --- */

static uint32_t iteration_initialize(uint64_t handle, uint32_t kind, const tc_cpg_name_t *group, uint64_t *iteration)
{
	(void)handle, (void)kind, (void)group;
	wait_for(&created);
	*iteration = 1;
	return TC_CS_OK;
}

static uint32_t iteration_next(uint64_t iteration, tc_cpg_iteration_description_t *description)
{
	const struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};

	(void)iteration;
	if (__atomic_exchange_n(&under_way, 1, __ATOMIC_SEQ_CST)) {
		return TC_CS_NO_SECTIONS;
	}
	/* For as long as it takes the creator to go on. */
	nanosleep(&moment, NULL);
	description->nodeid = 7;
	return TC_CS_OK;
}

static uint32_t iteration_finalize(uint64_t iteration)
{
	(void)iteration;
	return TC_CS_OK;
}

static void iteration(void)
{
	struct tc_arena *arena = tc_arena_new();
	const tc_cpg_name_t nobody = {.length = 0};
	const char *function;
	int ends[2];

	tc_table.cpg_iteration_initialize = iteration_initialize;
	tc_table.cpg_iteration_next = iteration_next;
	tc_table.cpg_iteration_finalize = iteration_finalize;
	assert(pipe(ends) == 0);
	assert(tc_cpg_iterate(1, ends[0], 3, &nobody, arena, &function) == TC_CS_OK);
	assert(arena->count == 1);
	tc_arena_free(arena);
}

/* --- a membership in which some came and others went --- */

static tc_quorum_nodelist_t on_nodelist;

static uint32_t model_initialize(uint64_t *handle, uint32_t model, tc_quorum_model_data_t *data, uint32_t *type,
	void *context)
{
	(void)handle, (void)type, (void)context;
	assert(model == TC_QUORUM_MODEL_V1);
	on_nodelist = ((tc_quorum_model_v1_data_t *)data)->nodelist;
	return TC_CS_OK;
}

static void membership(void)
{
	struct tc_connection connection = {.handle = 0};
	const uint32_t members[] = {1, 2, 3}, joined[] = {3, 4}, left[] = {5};
	tc_quorum_ring_id_t ring_id = {.nodeid = 1, .seq = 1ULL << 40};
	uint64_t i;

	tc_current = tc_arena_new();
	tc_table.quorum_model_initialize = model_initialize;
	tc_open_quorum(&connection);
	assert(connection.code == TC_CS_OK);
	on_nodelist(1, ring_id, 3, members, 2, joined, 1, left);
	for (i = 0; i < tc_current->records[0].length; i++) {
		printf("%02x", (unsigned char)tc_current->data[i]);
	}
	tc_arena_free(tc_current);
}

/* --- a library that closes fd 0 when it cannot connect --- */

static uint32_t close_first(uint64_t *handle, uint32_t model, tc_cpg_model_data_t *data, void *context)
{
	(void)model, (void)data, (void)context;
	*handle = 0;
	(void)close(0);
	return TC_CS_NOT_EXIST;
}

static void first_descriptor(void)
{
	struct tc_connection connection = {.handle = 0};
	struct stat before, after;
	int flags;

	tc_table.cpg_model_initialize = close_first;
	tc_table.cpg_finalize = finalize;
	for (flags = 0; flags <= FD_CLOEXEC; flags += FD_CLOEXEC) {
		assert(fcntl(0, F_SETFD, flags) == 0);
		assert(fstat(0, &before) == 0);
		assert(tc_connect(TC_LIBCPG, -1, &connection) == TC_CS_NOT_EXIST);
		assert(fstat(0, &after) == 0);
		assert(before.st_dev == after.st_dev && before.st_ino == after.st_ino);
		assert(fcntl(0, F_GETFD) == flags);
	}
	/* Without an fd 0 there is nothing to put back. */
	assert(close(0) == 0);
	assert(tc_connect(TC_LIBCPG, -1, &connection) == TC_CS_NOT_EXIST);
	assert(fcntl(0, F_GETFD) == -1);
}

/* --- zero copy, when the daemon is busy, and when it has gone --- */

static int code_of_free;

static uint32_t zcb_alloc(uint64_t handle, size_t size, void **buffer)
{
	(void)handle, (void)size, (void)buffer;
	assert(!"the file would stay for ever");
}

static uint32_t zcb_free(uint64_t handle, void *buffer)
{
	(void)handle, (void)buffer;
	return (uint32_t)code_of_free;
}

static uint32_t zcb_mcast_joined(uint64_t handle, uint32_t guarantee, void *message, size_t length)
{
	(void)handle, (void)guarantee, (void)message, (void)length;
	assert(!"libqb would spin");
}

static void zero_copy(void)
{
	struct tc_allocation allocation = {.size = 1};
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *start = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char resident[2];
	int ends[2];

	tc_table.cpg_zcb_alloc = zcb_alloc;
	tc_table.cpg_zcb_free = zcb_free;
	tc_table.cpg_zcb_mcast_joined = zcb_mcast_joined;
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
	while (write(ends[0], "x", 1) == 1) {
	}
	assert(tc_cpg_zcb_mcast_joined(1, ends[0], start + 64, 1) == TC_CS_TRY_AGAIN);

	code_of_free = TC_CS_TRY_AGAIN;
	assert(tc_cpg_zcb_free(1, start + 64, 2 * page - 64) == TC_CS_TRY_AGAIN);
	assert(mincore(start, 2 * page, resident) == 0);
	code_of_free = TC_CS_LIBRARY;
	assert(tc_cpg_zcb_free(1, start + 64, 2 * page - 64) == TC_CS_LIBRARY);
	assert(mincore(start, page, resident) == -1);
	assert(mincore(start + page, page, resident) == -1);

	close(ends[1]);
	allocation.fd = ends[0];
	assert(tc_cpg_zcb_alloc(-1, &allocation) == TC_CS_LIBRARY);
}

int main(int count, char **arguments)
{
	assert(count == 2);
	if (strcmp(arguments[1], "trackers") == 0) {
		trackers();
	} else if (strcmp(arguments[1], "listing") == 0) {
		listing();
	} else if (strcmp(arguments[1], "iteration") == 0) {
		iteration();
	} else if (strcmp(arguments[1], "membership") == 0) {
		membership();
	} else if (strcmp(arguments[1], "first descriptor") == 0) {
		first_descriptor();
	} else if (strcmp(arguments[1], "zero copy") == 0) {
		zero_copy();
	}
	return 0;
}
