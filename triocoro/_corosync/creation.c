/* One creation of a handle at a time.
 *
 * libqb 2.0 searches a library's table of handles for a free entry without a lock: two threads that connect at the same
 * time may get the same entry, and then one connection is lost and the other one shared. The call that creates a handle
 * goes on to wait for the daemon, which may be frozen, so a lock must not be held for the whole call. But once an entry
 * is complete, the library stores its handle, which is never 0, through the caller's pointer: from then on the next
 * creation may begin.
 */
#include "shim.h"

#include <pthread.h>
#include <time.h>

static pthread_mutex_t tc_creation_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *tc_creating; /* where the library will store the handle that is being created */

/* Wait until no other creation is at the table. `handle` is where the library will store the new handle. */
void tc_begin_creation(uint64_t *handle)
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

/* To be called before the memory of `handle` goes out of use. */
void tc_end_creation(uint64_t *handle)
{
	pthread_mutex_lock(&tc_creation_lock);
	if (tc_creating == handle) {
		tc_creating = NULL;
	}
	pthread_mutex_unlock(&tc_creation_lock);
}
