/* cpg_iteration_next waits for ever for a daemon that was frozen and then killed. ENDS THE DAEMON that it is given.
 *
 *     gcc -pthread -o cpg-iteration cpg-iteration.c -lcpg && ./cpg-iteration $(pidof corosync)
 */
#include <corosync/cpg.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static pid_t daemon_pid;

static void *kill_later(void *unused)
{
	(void)unused;
	sleep(1);
	kill(daemon_pid, SIGKILL);
	sleep(10);
	printf("cpg_iteration_next still waits, 10 s after the daemon's death\n");
	fflush(stdout);
	_exit(1);
}

int main(int argc, char **argv)
{
	cpg_callbacks_t none = {0};
	struct cpg_iteration_description_t member;
	cpg_iteration_handle_t iteration;
	cpg_handle_t handle;
	pthread_t killer;

	if (argc != 2 || cpg_initialize(&handle, &none) != CS_OK ||
	    cpg_iteration_initialize(handle, CPG_ITERATION_ALL, NULL, &iteration) != CS_OK) {
		fprintf(stderr, "usage: cpg-iteration PID-OF-COROSYNC\n");
		return 2;
	}
	daemon_pid = atoi(argv[1]);
	kill(daemon_pid, SIGSTOP);
	pthread_create(&killer, NULL, kill_later, NULL);
	printf("cpg_iteration_next: %d\n", cpg_iteration_next(iteration, &member));
	return 0;
}
