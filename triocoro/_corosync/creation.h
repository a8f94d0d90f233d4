/* One creation of a handle at a time.
 *
 * libqb 2.0 looks for a free entry of a library's table of handles without any lock: of two threads that connect at the
 * same time, both may get the same entry, and then one connection is lost and the other one shared. The call that creates
 * a handle goes on to wait for the daemon, perhaps a frozen one, so it cannot be locked as a whole. But the handle is
 * stored, never as 0, once its entry is complete: from then on the next creation may begin.
 */
#ifndef TC_CREATION_H
#define TC_CREATION_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

static pthread_mutex_t tc_creation_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *tc_creating; /* where the handle under creation will be stored */

static void tc_creation_begins(uint64_t *handle)
{
	const struct timespec pause = {.tv_nsec = 20 * 1000};
	int mine = 0;

	*handle = 0;
	while (!mine) {
		pthread_mutex_lock(&tc_creation_lock);
		if (tc_creating == NULL || __atomic_load_n(tc_creating, __ATOMIC_ACQUIRE) != 0) {
			tc_creating = handle;
			mine = 1;
		}
		pthread_mutex_unlock(&tc_creation_lock);
		if (!mine) {
			nanosleep(&pause, NULL);
		}
	}
}

/* Before the memory of `handle` is given up. */
static void tc_creation_ends(uint64_t *handle)
{
	pthread_mutex_lock(&tc_creation_lock);
	if (tc_creating == handle) {
		tc_creating = NULL;
	}
	pthread_mutex_unlock(&tc_creation_lock);
}

#endif
