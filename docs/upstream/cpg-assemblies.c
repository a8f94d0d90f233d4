/* A handle that is finalized in the midst of another member's message leaves the parts of it behind. Needs a daemon.
 *
 *     gcc -o cpg-assemblies cpg-assemblies.c -lcpg && ./cpg-assemblies
 */
#include <corosync/cpg.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SIZE = 20 * 1000 * 1000, ROUNDS = 20 };

static const struct cpg_name name = {1, "g"};
static int joined;

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *message,
	size_t length)
{
	(void)handle, (void)group, (void)nodeid, (void)pid, (void)message, (void)length;
}

static void confchg(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members, size_t count,
	const struct cpg_address *left, size_t left_count, const struct cpg_address *joiners, size_t joined_count)
{
	(void)handle, (void)group, (void)members, (void)count, (void)left, (void)left_count;
	for (size_t i = 0; i < joined_count; i++) {
		joined |= joiners[i].pid == (uint32_t)getpid();
	}
}

static cpg_handle_t join(void)
{
	cpg_callbacks_t callbacks = {deliver, confchg};
	cpg_handle_t handle;

	if (cpg_initialize(&handle, &callbacks) != CS_OK) {
		fprintf(stderr, "no daemon\n");
		exit(1);
	}
	while (cpg_join(handle, &name) != CS_OK) {
		usleep(1000);
	}
	for (joined = 0; !joined;) {
		cpg_dispatch(handle, CS_DISPATCH_ONE);
	}
	return handle;
}

static void send_for_ever(void)
{
	cpg_handle_t handle = join();
	struct iovec buffer = {calloc(1, SIZE), SIZE};

	for (;;) {
		(void)cpg_mcast_joined(handle, CPG_TYPE_AGREED, &buffer, 1);
		cpg_dispatch(handle, CS_DISPATCH_ALL);
	}
}

int main(void)
{
	pid_t sender = fork();

	if (sender == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		send_for_ever();
	}
	for (int round = 0; round < ROUNDS; round++) {
		cpg_handle_t handle = join();

		for (int parts = 0; parts < 10; parts++) {
			cpg_dispatch(handle, CS_DISPATCH_ONE);
		}
		cpg_finalize(handle);
		struct mallinfo2 found = mallinfo2();
		printf("after %2d memberships: %5.1f MB are allocated\n", round + 1, (found.uordblks + found.hblkhd) / 1e6);
	}
	kill(sender, SIGKILL);
	return 0;
}
