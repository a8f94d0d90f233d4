/* Threads that connect at the same time get the same entry of the table of handles. Needs a daemon.
 *
 *     gcc -pthread -o handle-table handle-table.c -lcpg && ./handle-table
 */
#include <corosync/cpg.h>
#include <pthread.h>
#include <stdio.h>

enum { THREADS = 8, ROUNDS = 200 };

static pthread_barrier_t start;
static cpg_handle_t handles[THREADS];
static cs_error_t errors[THREADS];

static void *connect_once(void *argument)
{
	long number = (long)argument;
	cpg_callbacks_t none = {0};

	pthread_barrier_wait(&start);
	errors[number] = cpg_initialize(&handles[number], &none);
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	int failed = 0, shared = 0;
	long i, j;

	pthread_barrier_init(&start, NULL, THREADS);
	for (int round = 0; round < ROUNDS; round++) {
		for (i = 0; i < THREADS; i++) {
			pthread_create(&threads[i], NULL, connect_once, (void *)i);
		}
		for (i = 0; i < THREADS; i++) {
			pthread_join(threads[i], NULL);
		}
		for (i = 0; i < THREADS; i++) {
			failed += errors[i] != CS_OK;
			for (j = 0; j < i; j++) {
				/* The lower half is the index; the upper one is random. */
				shared += errors[i] == CS_OK && errors[j] == CS_OK && (uint32_t)handles[i] == (uint32_t)handles[j];
			}
		}
		for (i = 0; i < THREADS; i++) {
			if (errors[i] == CS_OK) {
				cpg_finalize(handles[i]);
			}
		}
	}
	printf("of %d connects, %d failed, and %d pairs shared an entry\n", THREADS * ROUNDS, failed, shared);
	return 0;
}
