/* What Python calls: the libraries' functions under their own names, and the few calls that do more in one crossing.
 *
 * Included by the source that cffi generates, so everything is static. Codes below zero are our own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "abi.h"
#include "arena.h"
#include "creation.h"
#include "namespaces.h"
#include "tables.h"

enum { TC_CPG = 0, TC_VOTEQUORUM = 1 };
enum { TC_MISSING = -1, TC_FULL = -2, TC_SHALLOW = -3, TC_UNREACHABLE = -4 };

static struct tc_cpg_table tc_cpg;
static struct tc_votequorum_table tc_votequorum;

struct tc_symbol {
	const char *name;
	void *slot;
};

#define TC_CPG_SYMBOL(name, parameters, arguments) {#name, &tc_cpg.name},
#define TC_VOTEQUORUM_SYMBOL(name, parameters, arguments) {#name, &tc_votequorum.name},

static const struct tc_symbol tc_cpg_symbols[] = {TC_CPG_FUNCTIONS(TC_CPG_SYMBOL){NULL, NULL}};
static const struct tc_symbol tc_votequorum_symbols[] = {TC_VOTEQUORUM_FUNCTIONS(TC_VOTEQUORUM_SYMBOL){NULL, NULL}};
static const struct tc_symbol *const tc_libraries[] = {tc_cpg_symbols, tc_votequorum_symbols};

/* The name of a function of a library, NULL after the last. */
static const char *tc_symbol_name(int library, int index)
{
	return tc_libraries[library][index].name;
}

/* Load a library and fill its table; what it lacks stays NULL. Returns what dlerror(3) says, or NULL. */
static const char *tc_load(int library, const char *soname)
{
	const struct tc_symbol *symbol;
	void *loaded = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
	void *found;

	if (loaded == NULL) {
		return dlerror();
	}
	for (symbol = tc_libraries[library]; symbol->name != NULL; symbol++) {
		found = dlsym(loaded, symbol->name);
		memcpy(symbol->slot, &found, sizeof found);
	}
	return NULL;
}

#define TC_CPG_WRAPPER(name, parameters, arguments) \
	static int name parameters { return tc_cpg.name == NULL ? TC_MISSING : (int)tc_cpg.name arguments; }
#define TC_VOTEQUORUM_WRAPPER(name, parameters, arguments) \
	static int name parameters { return tc_votequorum.name == NULL ? TC_MISSING : (int)tc_votequorum.name arguments; }

TC_CPG_FUNCTIONS(TC_CPG_WRAPPER)
TC_VOTEQUORUM_FUNCTIONS(TC_VOTEQUORUM_WRAPPER)

#include "iteration.h"

/* --- callbacks --- */

static void tc_on_deliver(uint64_t handle, const tc_cpg_name_t *group, uint32_t nodeid, uint32_t pid, void *message,
	size_t length)
{
	char *bytes = tc_arena_add(tc_current, TC_MESSAGE, 0, tc_who(nodeid, pid), length);

	(void)handle;
	(void)group;
	if (bytes != NULL) {
		memcpy(bytes, message, length);
	}
}

static void tc_on_confchg(uint64_t handle, const tc_cpg_name_t *group, const tc_cpg_address_t *members,
	size_t members_count, const tc_cpg_address_t *left, size_t left_count, const tc_cpg_address_t *joined,
	size_t joined_count)
{
	uint32_t counts[2] = {(uint32_t)left_count, (uint32_t)joined_count};
	char *bytes = tc_arena_add(tc_current, TC_CONFCHG, (uint32_t)members_count, 0,
		sizeof counts + (members_count + left_count + joined_count) * sizeof *members);

	(void)handle;
	(void)group;
	if (bytes != NULL) {
		memcpy(bytes, counts, sizeof counts);
		bytes += sizeof counts;
		memcpy(bytes, members, members_count * sizeof *members);
		bytes += members_count * sizeof *members;
		memcpy(bytes, left, left_count * sizeof *left);
		bytes += left_count * sizeof *left;
		memcpy(bytes, joined, joined_count * sizeof *joined);
	}
}

static void tc_on_totem_confchg(uint64_t handle, tc_cpg_ring_id_t ring_id, uint32_t count, const uint32_t *members)
{
	(void)handle;
	tc_arena_add_ring(TC_TOTEM, ring_id.nodeid, ring_id.seq, members, count);
}

static void tc_on_quorum(uint64_t handle, uint64_t context, uint32_t quorate, uint32_t count, tc_votequorum_node_t nodes[])
{
	char *bytes = tc_arena_add(tc_current, TC_QUORUM, quorate, 0, (uint64_t)count * sizeof *nodes);

	(void)handle;
	(void)context;
	if (bytes != NULL) {
		memcpy(bytes, nodes, (size_t)count * sizeof *nodes);
	}
}

static void tc_on_nodelist(uint64_t handle, uint64_t context, tc_votequorum_ring_id_t ring_id, uint32_t count,
	uint32_t nodes[])
{
	(void)handle;
	(void)context;
	tc_arena_add_ring(TC_NODELIST, ring_id.nodeid, ring_id.seq, nodes, count);
}

static void tc_on_expectedvotes(uint64_t handle, uint64_t context, uint32_t expected_votes)
{
	(void)handle;
	(void)context;
	(void)tc_arena_add(tc_current, TC_EXPECTED, expected_votes, 0, 0);
}

/* --- connecting --- */

struct tc_connection {
	uint64_t handle;
	int fd;
	uint32_t max_message_size;
	uint32_t flags;
	int code;
	int error;            /* TC_UNREACHABLE: an errno, */
	const char *function; /* and the function that failed */
};

static void tc_open_cpg(void *pointer)
{
	struct tc_connection *out = pointer;
	tc_cpg_model_v1_data_t data = {.model = TC_CPG_MODEL_V1, .deliver = tc_on_deliver, .confchg = tc_on_confchg,
		.totem_confchg = tc_on_totem_confchg, .flags = out->flags};

	out->function = "cpg_model_initialize";
	out->code = cpg_model_initialize(&out->handle, TC_CPG_MODEL_V1, (tc_cpg_model_data_t *)&data, NULL);
}

static void tc_open_votequorum(void *pointer)
{
	struct tc_connection *out = pointer;
	tc_votequorum_callbacks_t callbacks = {
		.quorum = tc_on_quorum, .expectedvotes = tc_on_expectedvotes, .nodelist = tc_on_nodelist};

	out->function = "votequorum_initialize";
	out->code = votequorum_initialize(&out->handle, &callbacks);
}

/* Connect in the namespaces of `pidfd`, or in our own if it is negative. */
static int tc_open(void (*open)(void *), int pidfd, struct tc_connection *out)
{
	struct tc_visit visit = {.pidfd = pidfd, .function = open, .argument = out};
	int attempts;

	/* libqb 2.0.6 fails a connect now and then for no reason; the second one tells. */
	for (attempts = 0; attempts < 2; attempts++) {
		int entered = 0;

		tc_creation_begins(&out->handle);
		if (pidfd < 0) {
			open(out);
		} else {
			entered = tc_visit_namespaces(&visit);
		}
		tc_creation_ends(&out->handle);
		if (entered != 0) {
			out->function = visit.failed;
			out->error = visit.error;
			return out->code = TC_UNREACHABLE;
		}
		if (out->code != TC_CS_LIBRARY) {
			break;
		}
	}
	return out->code;
}

static int tc_cpg_connect(int pidfd, struct tc_connection *out)
{
	if (tc_open(tc_open_cpg, pidfd, out) != TC_CS_OK) {
		return out->code;
	}
	out->function = "cpg_fd_get";
	out->code = cpg_fd_get(out->handle, &out->fd);
	if (out->code == TC_CS_OK) {
		out->function = "cpg_max_atomic_msgsize_get";
		out->code = cpg_max_atomic_msgsize_get(out->handle, &out->max_message_size);
	}
	if (out->code != TC_CS_OK) {
		(void)cpg_finalize(out->handle);
	}
	return out->code;
}

static int tc_votequorum_connect(int pidfd, struct tc_connection *out)
{
	if (tc_open(tc_open_votequorum, pidfd, out) != TC_CS_OK) {
		return out->code;
	}
	out->function = "votequorum_fd_get";
	out->code = votequorum_fd_get(out->handle, &out->fd);
	if (out->code != TC_CS_OK) {
		(void)votequorum_finalize(out->handle);
	}
	return out->code;
}

/* --- dispatching --- */

/* The libraries put a megabyte on the stack; that much and some room for others must be left. */
#define TC_STACK_NEEDED (1024 * 1024 + 192 * 1024)

static __thread uintptr_t tc_stack_low __attribute__((tls_model("initial-exec")));
static __thread uintptr_t tc_stack_high __attribute__((tls_model("initial-exec")));

static int tc_stack_is_shallow(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	if (tc_stack_high == 0) {
		pthread_attr_t attributes;
		void *low;
		size_t size;

		tc_stack_high = 1;
		if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
			if (pthread_attr_getstack(&attributes, &low, &size) == 0) {
				tc_stack_low = (uintptr_t)low;
				tc_stack_high = (uintptr_t)low + size;
			}
			pthread_attr_destroy(&attributes);
		}
	}
	/* Elsewhere than on the thread's own stack (a greenlet's, say) nothing is known of its size. */
	return here > tc_stack_low && here < tc_stack_high && here - tc_stack_low < TC_STACK_NEEDED;
}

static int tc_dispatch(uint32_t (*dispatch)(uint64_t, uint32_t), uint64_t handle, struct tc_arena *arena,
	uint32_t max_events, uint64_t max_bytes)
{
	struct tc_arena *before = tc_current;
	int code = TC_CS_OK;

	if (dispatch == NULL) {
		return TC_MISSING;
	}
	if (tc_stack_is_shallow()) {
		return TC_SHALLOW;
	}
	tc_current = arena;
	while (arena->taken < max_events && arena->payload <= max_bytes && !arena->failed) {
		code = (int)dispatch(handle, TC_DISPATCH_ONE_NONBLOCKING);
		if (code != TC_CS_OK) {
			break;
		}
		arena->taken++;
	}
	tc_current = before;
	return arena->failed ? TC_CS_NO_MEMORY : code;
}

static int tc_cpg_dispatch(uint64_t handle, struct tc_arena *arena, uint32_t max_events, uint64_t max_bytes)
{
	return tc_dispatch(tc_cpg.cpg_dispatch, handle, arena, max_events, max_bytes);
}

static int tc_votequorum_dispatch(uint64_t handle, struct tc_arena *arena, uint32_t max_events, uint64_t max_bytes)
{
	return tc_dispatch(tc_votequorum.votequorum_dispatch, handle, arena, max_events, max_bytes);
}

/* --- multicasting --- */

/* Send `count` messages that lie one after the other in `data`, while the notification socket has room (else libqb
 * spins). Returns sent << 32 | code of the last attempt.
 */
static int64_t tc_cpg_multicast(uint64_t handle, int fd, const char *data, const uint32_t *lengths, uint32_t count)
{
	struct pollfd entry = {.fd = fd, .events = POLLOUT};
	struct iovec buffer = {.iov_base = (void *)data};
	uint32_t sent = 0;
	int code = TC_CS_OK;

	if (tc_cpg.cpg_mcast_joined == NULL) {
		return (uint32_t)TC_MISSING;
	}
	if (poll(&entry, 1, 0) <= 0) {
		return (uint32_t)TC_FULL;
	}
	while (sent < count) {
		buffer.iov_len = lengths[sent];
		code = (int)tc_cpg.cpg_mcast_joined(handle, TC_CPG_TYPE_AGREED, &buffer, 1);
		if (code != TC_CS_OK) {
			break;
		}
		buffer.iov_base = (char *)buffer.iov_base + lengths[sent];
		sent++;
	}
	return (int64_t)((uint64_t)sent << 32 | (uint32_t)code);
}

/* Send one message above the atomic size, by round trips. */
static int tc_cpg_multicast_fragmented(uint64_t handle, int fd, const char *data, uint64_t length)
{
	struct iovec buffer = {.iov_base = (void *)data, .iov_len = length};
	int code = cpg_mcast_joined(handle, TC_CPG_TYPE_AGREED, &buffer, 1);

	/* On a connection that breaks halfway the library reports the code of an earlier reply, such as CS_OK. */
	return code != TC_MISSING && tc_hung_up(fd) ? TC_CS_LIBRARY : code;
}

/* --- votequorum --- */

/* The library copies the name of the device unbounded, and for an unknown node from what the daemon left unset. */
static int tc_votequorum_getinfo(uint64_t handle, uint32_t nodeid, tc_votequorum_info_t *out)
{
	struct {
		tc_votequorum_info_t info;
		char spare[1024];
	} roomy;
	int code;

	memset(&roomy, 0, sizeof roomy);
	code = votequorum_getinfo(handle, nodeid, &roomy.info);
	roomy.info.qdevice_name[sizeof roomy.info.qdevice_name - 1] = 0;
	*out = roomy.info;
	return code;
}
