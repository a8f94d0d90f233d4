/* cpg_iteration_initialize, _next and _finalize in one call, which a dying daemon cannot hang.
 *
 * cpg_iteration_next waits on a semaphore without ever checking whether the daemon is alive. So the iteration runs on a
 * thread of its own, which is cancelled in that wait once the connection has hung up.
 */
#include "shim.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

struct tc_iteration {
	uint64_t handle;
	uint32_t kind;
	const tc_cpg_name_t *group;
	struct tc_arena *arena;
	const char *function;
	int code;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	int over; /* whether the thread no longer uses the connection */
};

static void tc_iterate(struct tc_iteration *job)
{
	tc_cpg_iteration_description_t entry;
	uint64_t iteration;
	uint32_t length;
	char *bytes;
	int code, state, attempts;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	job->function = "cpg_iteration_initialize";
	tc_begin_creation(&iteration);
	code = cpg_iteration_initialize(job->handle, job->kind, job->group, &iteration);
	tc_end_creation(&iteration);
	if (code != TC_CS_OK) {
		job->code = code;
		return;
	}
	job->function = "cpg_iteration_next";
	for (attempts = 0;;) {
		memset(&entry, 0, sizeof entry);
		job->code = TC_CS_LIBRARY; /* the result if the thread is cancelled in the next call */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
		code = cpg_iteration_next(iteration, &entry);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
		job->code = code;
		if (code == TC_CS_TRY_AGAIN && ++attempts < 100) {
			/* The request was not even sent, so the iteration has not moved. */
			struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};

			nanosleep(&pause, NULL);
			continue;
		}
		if (code != TC_CS_OK) {
			break;
		}
		attempts = 0;
		length = entry.group.length <= sizeof entry.group.value ? entry.group.length : sizeof entry.group.value;
		bytes = tc_arena_add(job->arena, TC_GROUP_MEMBER, 0, tc_client(entry.nodeid, entry.pid), length);
		if (bytes == NULL) {
			job->code = TC_CS_NO_MEMORY;
			break;
		}
		memcpy(bytes, entry.group.value, length);
	}
	if (job->code == TC_CS_NO_SECTIONS) { /* the regular end */
		job->code = TC_CS_OK;
	}
	(void)cpg_iteration_finalize(iteration);
}

static void tc_note_end(void *argument)
{
	struct tc_iteration *job = argument;

	pthread_mutex_lock(&job->lock);
	job->over = 1;
	pthread_cond_signal(&job->ended);
	pthread_mutex_unlock(&job->lock);
}

static void *tc_run_iteration(void *argument)
{
	/* A cancelled thread also comes by here. */
	pthread_cleanup_push(tc_note_end, argument);
	tc_iterate(argument);
	pthread_cleanup_pop(1);
	return NULL;
}

/* Add a record to the arena for each entry. A `group` of length 0 stands for none. */
int tc_cpg_iterate(uint64_t handle, int fd, uint32_t kind, const tc_cpg_name_t *group, struct tc_arena *arena,
	const char **function)
{
	struct tc_iteration job = {
		.handle = handle, .kind = kind, .group = group->length > 0 ? group : NULL, .arena = arena,
		.lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_condattr_t attributes;
	struct timespec until;
	sigset_t all, before;
	pthread_t thread;
	int created, gone = 0;

	/* The thread inherits the mask: signals are for the threads of Python. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* The time of day may be set back. */
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&job.ended, &attributes);
	pthread_condattr_destroy(&attributes);
	created = pthread_create(&thread, NULL, tc_run_iteration, &job);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	*function = "cpg_iteration_initialize";
	if (created != 0) {
		pthread_cond_destroy(&job.ended);
		*function = "pthread_create";
		return TC_LACKING;
	}
	/* Until the thread has ended, `job` belongs to it. */
	pthread_mutex_lock(&job.lock);
	while (!job.over) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 50 * 1000 * 1000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		/* A last reply may be there when the daemon dies: the thread gets one more interval to take it. */
		if (pthread_cond_timedwait(&job.ended, &job.lock, &until) == ETIMEDOUT && tc_hung_up(fd) && ++gone == 2) {
			pthread_cancel(thread);
		}
	}
	pthread_mutex_unlock(&job.lock);
	pthread_join(thread, NULL);
	pthread_cond_destroy(&job.ended);
	*function = job.function;
	return job.code;
}
