/* cpg_iteration_initialize, _next and _finalize in one call, which a dying daemon cannot hang.
 *
 * cpg_iteration_next waits on a semaphore without ever checking whether the daemon is alive. So the iteration runs on a
 * thread of its own, which is cancelled in that wait once the connection has hung up.
 */
#include "shim.h"

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
};

static void *tc_iterate(void *argument)
{
	struct tc_iteration *job = argument;
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
		return NULL;
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
	return NULL;
}

/* Add a record to the arena for each entry. A `group` of length 0 stands for none. */
int tc_cpg_iterate(uint64_t handle, int fd, uint32_t kind, const tc_cpg_name_t *group, struct tc_arena *arena,
	const char **function)
{
	struct tc_iteration job = {
		.handle = handle, .kind = kind, .group = group->length > 0 ? group : NULL, .arena = arena};
	struct timespec until;
	sigset_t all, before;
	pthread_t thread;
	int created, gone = 0;

	/* The thread inherits the mask: signals are for the threads of Python. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	created = pthread_create(&thread, NULL, tc_iterate, &job);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	*function = "cpg_iteration_initialize";
	if (created != 0) {
		return TC_CS_NO_MEMORY;
	}
	/* Until the thread has ended, `job` belongs to it. */
	for (;;) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 50 * 1000 * 1000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (pthread_timedjoin_np(thread, NULL, &until) == 0) {
			break;
		}
		/* A last reply may be there when the daemon dies: the thread gets one more interval to take it. */
		if (tc_hung_up(fd) && ++gone == 2) {
			pthread_cancel(thread);
		}
	}
	*function = job.function;
	return job.code;
}
