/* A message above the atomic size, during which the daemon dies, gets the result of an earlier part. ENDS THE DAEMON that it is given.
 *
 *     gcc -pthread -o cpg-fragments cpg-fragments.c -lcpg && ./cpg-fragments $(pidof corosync)
 */
#include <corosync/cpg.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SIZE = 500 * 1000 * 1000 };

static pid_t daemon_pid;

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *message,
	size_t length)
{
	(void)handle, (void)group, (void)nodeid, (void)pid, (void)message, (void)length;
}

static void *kill_later(void *unused)
{
	(void)unused;
	usleep(500 * 1000);
	kill(daemon_pid, SIGKILL);
	return NULL;
}

static void *receive(void *handle)
{
	(void)cpg_dispatch(*(cpg_handle_t *)handle, CS_DISPATCH_BLOCKING);
	return NULL;
}

int main(int argc, char **argv)
{
	const struct cpg_name name = {1, "g"};
	struct iovec buffer = {calloc(1, SIZE), SIZE};
	cpg_callbacks_t callbacks = {deliver, NULL};
	cpg_handle_t handle;
	pthread_t killer, receiver;

	if (argc != 2 || cpg_initialize(&handle, &callbacks) != CS_OK || cpg_join(handle, &name) != CS_OK) {
		fprintf(stderr, "usage: cpg-fragments PID-OF-COROSYNC\n");
		return 2;
	}
	daemon_pid = atoi(argv[1]);
	pthread_create(&receiver, NULL, receive, &handle);
	sleep(1); /* the join takes effect */
	pthread_create(&killer, NULL, kill_later, NULL);
	/* 2 would be right: CS_ERR_LIBRARY. */
	printf("cpg_mcast_joined: %d\n", cpg_mcast_joined(handle, CPG_TYPE_AGREED, &buffer, 1));
	return 0;
}
