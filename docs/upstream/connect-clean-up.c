/* A connect that can open no socket closes descriptor 0. Needs no daemon.
 *
 *     gcc -o connect-clean-up connect-clean-up.c -lcpg && ./connect-clean-up
 */
#include <corosync/cpg.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

int main(void)
{
	struct rlimit limit = {3, 3}; /* 0, 1 and 2 are open */
	cpg_handle_t handle;
	cs_error_t error;

	setrlimit(RLIMIT_NOFILE, &limit);
	error = cpg_initialize(&handle, NULL);
	printf("cpg_initialize: %d; descriptor 0 is %s\n", error, fcntl(0, F_GETFD) == -1 ? "CLOSED" : "open");
	return 0;
}
