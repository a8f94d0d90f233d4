/* gcc -pthread cmap-notifications.c -lcmap: notifications that another thread's tracker got. Run on a throwaway node. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <corosync/cmap.h>

#define THREADS 4
#define ROUNDS 3000

static int failed;

static void on_change(cmap_handle_t handle, cmap_track_handle_t tracker, int32_t event, const char *key,
	struct cmap_notify_value new_value, struct cmap_notify_value old_value, void *mine)
{
	(void)handle, (void)tracker, (void)event, (void)new_value, (void)old_value;
	if (strcmp(key, mine) != 0) {
		(void)__sync_add_and_fetch(&failed, 1);
	}
}

static void *track(void *mine)
{
	cmap_handle_t handle;

	if (cmap_initialize(&handle) != CS_OK) {
		exit(2);
	}
	for (uint32_t i = 0; i < ROUNDS; i++) {
		cmap_track_handle_t tracker;
		cs_error_t added = cmap_track_add(handle, mine, CMAP_TRACK_ADD | CMAP_TRACK_MODIFY, on_change, mine, &tracker);

		(void)cmap_set_uint32(handle, mine, i);
		(void)cmap_dispatch(handle, CS_DISPATCH_ALL);
		if (added != CS_OK || cmap_track_delete(handle, tracker) != CS_OK) {
			(void)__sync_add_and_fetch(&failed, 1);
		}
	}
	(void)cmap_finalize(handle);
	return NULL;
}

int main(void)
{
	static char keys[THREADS][16];
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++) {
		(void)snprintf(keys[i], sizeof keys[i], "race.key%d", i);
		(void)pthread_create(&threads[i], NULL, track, keys[i]);
	}
	for (int i = 0; i < THREADS; i++) {
		(void)pthread_join(threads[i], NULL);
	}
	printf("%d of %d rounds had another thread's tracker, or failed\n", failed, THREADS * ROUNDS);
	return failed != 0;
}
