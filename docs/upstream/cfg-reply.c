/* A cfg handle that has replied to a shutdown request is never closed. Needs a daemon.
 *
 *     gcc -o cfg-reply cfg-reply.c -lcfg && ./cfg-reply
 */
#include <corosync/cfg.h>
#include <dirent.h>
#include <stdio.h>

static int descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(folder) != NULL) {
		count++;
	}
	closedir(folder);
	return count;
}

int main(void)
{
	corosync_cfg_callbacks_t none = {0};
	corosync_cfg_handle_t handle;
	int before = descriptors();

	for (int round = 0; round < 10; round++) {
		if (corosync_cfg_initialize(&handle, &none) != CS_OK) {
			fprintf(stderr, "no daemon\n");
			return 1;
		}
		/* No request is under way, which the daemon answers with CS_ERR_ACCESS. */
		int reply = corosync_cfg_replyto_shutdown(handle, COROSYNC_CFG_SHUTDOWN_FLAG_NO);
		int end = corosync_cfg_finalize(handle);
		printf("reply: %d, finalize: %d, open descriptors: %+d\n", reply, end, descriptors() - before);
	}
	return 0;
}
