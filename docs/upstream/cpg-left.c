/* A handle that has left its group goes on receiving the messages of that group. Needs a daemon.
 *
 *     gcc -o cpg-left cpg-left.c -lcpg && ./cpg-left
 */
#include <corosync/cpg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

static const struct cpg_name name = {1, "g"};
static int left, received;

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *message,
	size_t length)
{
	(void)handle, (void)group, (void)nodeid, (void)pid, (void)message, (void)length;
	received += left;
}

static void confchg(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members, size_t count,
	const struct cpg_address *leavers, size_t left_count, const struct cpg_address *joined, size_t joined_count)
{
	(void)handle, (void)group, (void)members, (void)count, (void)joined, (void)joined_count;
	for (size_t i = 0; i < left_count; i++) {
		left |= leavers[i].pid == (uint32_t)getpid();
	}
}

static cpg_handle_t join(void)
{
	cpg_callbacks_t callbacks = {deliver, confchg};
	cpg_handle_t handle;

	if (cpg_initialize(&handle, &callbacks) != CS_OK || cpg_join(handle, &name) != CS_OK) {
		fprintf(stderr, "no daemon\n");
		exit(1);
	}
	return handle;
}

int main(void)
{
	pid_t sender = fork();

	if (sender == 0) {
		char text[] = "hello";
		struct iovec buffer = {text, sizeof text};
		cpg_handle_t handle = join();

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			(void)cpg_mcast_joined(handle, CPG_TYPE_AGREED, &buffer, 1);
			cpg_dispatch(handle, CS_DISPATCH_ALL);
			usleep(1000);
		}
	}
	cpg_handle_t handle = join();

	cpg_leave(handle, &name);
	for (int i = 0; i < 300; i++) {
		cpg_dispatch(handle, CS_DISPATCH_ALL);
		usleep(1000);
	}
	printf("left: %s; messages received since: %d\n", left ? "yes" : "no", received);
	kill(sender, SIGKILL);
	return 0;
}
