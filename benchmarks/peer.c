/*
 * A member of a process group, written with libcpg: the reference that triocoro is measured against.
 *
 *     peer batch GROUP SIZE COUNT SENDERS    send COUNT messages as fast as possible, receive those of all SENDERS
 *     peer trip GROUP SIZE COUNT SENDERS     send a message and wait for its delivery to us, COUNT times
 *
 * It joins, prints "ready" once the group has SENDERS members, and starts when it reads a line. Then it prints its result
 * as a line of JSON, and exits at the end of its input. peer.py does the same with triocoro.
 *
 * One thread sends, another dispatches. The sender polls for room before each burst, because cpg_mcast_joined spins while
 * the socket is full. After CS_ERR_TRY_AGAIN it waits for the next delivery, but at most for a millisecond.
 */
#include <corosync/cpg.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	BURST = 64,
	/* With nothing sent and nothing delivered for so long, the missing messages count as lost. */
	PATIENCE_MS = 2000,
};

static cpg_handle_t handle;
static int fd;
static unsigned int own_nodeid;
static uint32_t own_pid;
static long member_count;
static size_t payload_size;
static long count, senders;
static char *payload;
static long received, own_received, try_agains;
static atomic_int sending;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t delivered = PTHREAD_COND_INITIALIZER;
static int sender_waits;

static void check(cs_error_t error, const char *function)
{
	if (error != CS_OK) {
		fprintf(stderr, "peer: %s: error %d\n", function, error);
		exit(1);
	}
}

static double seconds(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double now(void)
{
	return seconds(CLOCK_MONOTONIC);
}

static double cpu(void)
{
	return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void on_delivery(cpg_handle_t unused, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *data,
			size_t size)
{
	(void)unused, (void)group, (void)data, (void)size;
	received++;
	own_received += nodeid == own_nodeid && pid == own_pid;
}

static void on_change(cpg_handle_t unused, const struct cpg_name *group, const struct cpg_address *members,
		      size_t members_count, const struct cpg_address *left, size_t left_count,
		      const struct cpg_address *joined, size_t joined_count)
{
	(void)unused, (void)group, (void)members, (void)left, (void)left_count, (void)joined, (void)joined_count;
	member_count = (long)members_count;
}

/* Wait for events for at most so long, and dispatch those that wait. Returns 0 if there were none. */
static int dispatch(int milliseconds)
{
	struct pollfd in = { .fd = fd, .events = POLLIN };

	if (poll(&in, 1, milliseconds) <= 0)
		return 0;
	/* Not CS_DISPATCH_ALL, which need not return while messages keep coming. */
	for (int i = 0; i < 256; i++) {
		cs_error_t error = cpg_dispatch(handle, CS_DISPATCH_ONE_NONBLOCKING);

		if (error == CS_ERR_TRY_AGAIN)
			break;
		check(error, "cpg_dispatch");
	}
	return 1;
}

static cs_error_t multicast(void)
{
	struct iovec piece = { .iov_base = payload, .iov_len = payload_size };
	cs_error_t error = cpg_mcast_joined(handle, CPG_TYPE_AGREED, &piece, 1);

	if (error != CS_ERR_TRY_AGAIN)
		check(error, "cpg_mcast_joined");
	return error;
}

static void wait_for_delivery(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&mutex);
	sender_waits = 1;
	pthread_cond_timedwait(&delivered, &mutex, &until);
	sender_waits = 0;
	pthread_mutex_unlock(&mutex);
}

static void *send_all(void *unused)
{
	struct pollfd out = { .fd = fd, .events = POLLOUT };
	long sent = 0;

	while (sent < count) {
		poll(&out, 1, -1);
		for (int i = 0; i < BURST && sent < count; i++) {
			if (multicast() == CS_ERR_TRY_AGAIN) {
				try_agains++;
				wait_for_delivery();
				break;
			}
			sent++;
		}
	}
	sending = 0;
	return unused;
}

static int ascending(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

static void report(double time, double used, double *trips, long tripped)
{
	printf("{\"seconds\": %.9f, \"cpu\": %.9f, \"received\": %ld, \"lost\": %ld, \"try_agains\": %ld", time, used,
	       received, count * senders - received, try_agains);
	if (tripped > 0) {
		qsort(trips, (size_t)tripped, sizeof *trips, ascending);
		printf(", \"p50\": %.9f, \"p99\": %.9f, \"p999\": %.9f", trips[tripped / 2], trips[tripped * 99 / 100],
		       trips[tripped * 999 / 1000]);
	}
	printf("}\n");
	fflush(stdout);
}

static void batch(void)
{
	double start = now(), used = cpu(), last = start;
	pthread_t sender;

	sending = 1;
	if (pthread_create(&sender, NULL, send_all, NULL))
		abort();
	while (received < count * senders) {
		/* Read before the wait, so that the patience begins when nothing is sent any more. */
		int was_sending = sending;

		if (dispatch(PATIENCE_MS)) {
			last = now();
			pthread_mutex_lock(&mutex);
			if (sender_waits)
				pthread_cond_signal(&delivered);
			pthread_mutex_unlock(&mutex);
		} else if (!was_sending) {
			break;
		}
	}
	pthread_join(sender, NULL);
	report(last - start, cpu() - used, NULL, 0);
}

static void trip(void)
{
	double *trips = calloc((size_t)count, sizeof *trips);
	double start = now(), used = cpu();
	long tripped = 0;

	for (long i = 0; i < count; i++) {
		double sent = now();
		long before = own_received;

		while (multicast() == CS_ERR_TRY_AGAIN) {
			try_agains++;
			poll(NULL, 0, 1);
		}
		while (own_received == before && dispatch(PATIENCE_MS))
			;
		if (own_received > before)
			trips[tripped++] = now() - sent;
	}
	report(now() - start, cpu() - used, trips, tripped);
}

int main(int argc, char **argv)
{
	cpg_model_v1_data_t callbacks = { .cpg_deliver_fn = on_delivery, .cpg_confchg_fn = on_change };
	struct cpg_name group = { .length = 0 };
	char line[256];

	if (argc != 6 || strlen(argv[2]) > sizeof group.value) {
		fprintf(stderr, "usage: peer batch|trip GROUP SIZE COUNT SENDERS\n");
		return 2;
	}
	group.length = (uint32_t)strlen(argv[2]);
	memcpy(group.value, argv[2], group.length);
	payload_size = strtoul(argv[3], NULL, 10);
	count = strtol(argv[4], NULL, 10);
	senders = strtol(argv[5], NULL, 10);
	payload = calloc(payload_size, 1);
	own_pid = (uint32_t)getpid();
	check(cpg_model_initialize(&handle, CPG_MODEL_V1, (cpg_model_data_t *)&callbacks, NULL), "cpg_model_initialize");
	check(cpg_local_get(handle, &own_nodeid), "cpg_local_get");
	check(cpg_fd_get(handle, &fd), "cpg_fd_get");
	check(cpg_join(handle, &group), "cpg_join");
	while (member_count < senders)
		dispatch(-1);
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin))
		return 1;
	if (!strcmp(argv[1], "trip"))
		trip();
	else
		batch();
	while (fgets(line, sizeof line, stdin))
		;
	check(cpg_finalize(handle), "cpg_finalize");
	return 0;
}
