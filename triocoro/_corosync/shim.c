/* What Python calls: the libraries' functions under their own names, and the few calls that do more in one crossing.
 *
 * Included by the source that cffi generates, so everything is static. Codes below zero are our own. This file has what
 * the libraries share: loading, connecting, dispatching; each has a header of its own for the rest.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <time.h>

#include "abi.h"
#include "arena.h"
#include "creation.h"
#include "namespaces.h"
#include "tables.h"

enum { TC_MISSING = -1, TC_FULL = -2, TC_SHALLOW = -3, TC_UNREACHABLE = -4 };

/* --- what the libraries' headers use --- */

static struct tc_functions tc_table;

#define TC_WRAPPER(name, parameters, arguments) \
	static int name parameters { return tc_table.name == NULL ? TC_MISSING : (int)tc_table.name arguments; }
#define TC_WRAPPERS(NAME) TC_##NAME##_FUNCTIONS(TC_WRAPPER)

TC_LIBRARIES(TC_WRAPPERS)

struct tc_connection {
	uint64_t handle;
	int fd;
	uint32_t flags; /* what the library's open function makes of them */
	uint32_t max_message_size;
	uint32_t quorum_type;
	int code;
	int error;            /* TC_UNREACHABLE: an errno, */
	const char *function; /* and the function that failed */
};

static int tc_hung_up(int fd)
{
	struct pollfd entry = {.fd = fd, .events = POLLIN};

	return poll(&entry, 1, 0) == 1 && (entry.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* The libraries put a megabyte on the stack; that much and some room for others must be left. */
#define TC_STACK_NEEDED (1024 * 1024 + 192 * 1024)

TC_THREAD_LOCAL uintptr_t tc_stack_low;
TC_THREAD_LOCAL uintptr_t tc_stack_high;

#ifndef __GLIBC__

/* The first thread's stack grows as far as a limit, but musl tells only how far it has grown. Its upper end is where the
 * kernel has left a few random bytes for the program; no other stack is there.
 */
static uintptr_t tc_first_stack_low(uintptr_t low, uintptr_t high)
{
	struct rlimit limit;

	if (getauxval(AT_RANDOM) - (high - 8192) >= 16384 || getrlimit(RLIMIT_STACK, &limit) != 0) {
		return low;
	}
	return limit.rlim_cur < high ? high - limit.rlim_cur : 0;
}

#endif

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
#ifndef __GLIBC__
				tc_stack_low = tc_first_stack_low(tc_stack_low, tc_stack_high);
#endif
			}
			pthread_attr_destroy(&attributes);
		}
	}
	/* Elsewhere than on the thread's own stack (a greenlet's, say) nothing is known of its size. */
	return here > tc_stack_low && here < tc_stack_high && here - tc_stack_low < TC_STACK_NEEDED;
}

#include "libcfg.h"
#include "libcmap.h"
#include "libcpg.h"
#include "libquorum.h"
#include "libvotequorum.h"

/* --- the libraries --- */

struct tc_symbol {
	const char *name;
	void *slot;
};

#define TC_SYMBOL(name, parameters, arguments) {#name, &tc_table.name},
#define TC_SYMBOLS(NAME) \
	static const struct tc_symbol tc_symbols_##NAME[] = {TC_##NAME##_FUNCTIONS(TC_SYMBOL){NULL, NULL}};
#define TC_NUMBER(NAME) TC_LIB##NAME,

TC_LIBRARIES(TC_SYMBOLS)
enum { TC_LIBRARIES(TC_NUMBER) };

#define TC_ROW(NAME, prefix, open, dispatch, finalize) \
	[TC_LIB##NAME] = {tc_symbols_##NAME, open, dispatch, finalize, prefix##_fd_get, #prefix "_fd_get"}

static const struct tc_library {
	const struct tc_symbol *symbols;
	void (*open)(void *connection);
	int (*dispatch)(uint64_t handle, uint32_t how);
	int (*finalize)(uint64_t handle);
	int (*fd_get)(uint64_t handle, int *fd);
	const char *fd_get_name;
} tc_libraries[] = {
	TC_ROW(CPG, cpg, tc_open_cpg, cpg_dispatch, cpg_finalize),
	TC_ROW(VOTEQUORUM, votequorum, tc_open_votequorum, votequorum_dispatch, votequorum_finalize),
	TC_ROW(QUORUM, quorum, tc_open_quorum, quorum_dispatch, quorum_finalize),
	TC_ROW(CMAP, cmap, tc_open_cmap, tc_cmap_dispatch, tc_cmap_finalize),
	TC_ROW(CFG, corosync_cfg, tc_open_cfg, corosync_cfg_dispatch, corosync_cfg_finalize),
};

/* The name of a function of a library, NULL after the last. */
static const char *tc_symbol_name(int library, int index)
{
	return tc_libraries[library].symbols[index].name;
}

/* Load a library and fill in its functions; what it lacks stays NULL. Returns what dlerror(3) says, or NULL. */
static const char *tc_load(int library, const char *soname)
{
	const struct tc_symbol *symbol;
	void *loaded = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
	void *found;

	if (loaded == NULL) {
		return dlerror();
	}
	for (symbol = tc_libraries[library].symbols; symbol->name != NULL; symbol++) {
		found = dlsym(loaded, symbol->name);
		memcpy(symbol->slot, &found, sizeof found);
	}
	return NULL;
}

/* Connect in the namespaces of `pidfd`, or in our own if it is negative. */
static int tc_connect(int library, int pidfd, struct tc_connection *out)
{
	const struct tc_library *its = &tc_libraries[library];
	struct tc_visit visit = {.pidfd = pidfd, .function = its->open, .argument = out};
	int attempts;

	/* libqb 2.0.6 fails a connect now and then for no reason; the second one tells. */
	for (attempts = 0; attempts < 2; attempts++) {
		int entered = 0;

		tc_creation_begins(&out->handle);
		if (pidfd < 0) {
			its->open(out);
		} else {
			entered = tc_visit_namespaces(&visit);
		}
		tc_creation_ends(&out->handle);
		if (entered != 0) {
			out->function = visit.failed;
			out->error = visit.error;
			return out->code = TC_UNREACHABLE;
		}
		if (out->code == TC_CS_OK) {
			out->function = its->fd_get_name;
			out->code = its->fd_get(out->handle, &out->fd);
		}
		if (out->code == TC_CS_OK) {
			break;
		}
		/* Some failures leave the handle open; where it is gone already, this does nothing. */
		if (out->handle != 0) {
			(void)its->finalize(out->handle);
		}
		if (out->code != TC_CS_LIBRARY) {
			break;
		}
	}
	return out->code;
}

static int tc_finalize(int library, uint64_t handle)
{
	return tc_libraries[library].finalize(handle);
}

/* Take what waits, without waiting, until `max_events` were taken or `max_bytes` of payload are exceeded. */
static int tc_dispatch(int library, uint64_t handle, struct tc_arena *arena, uint32_t max_events, uint64_t max_bytes)
{
	int (*dispatch)(uint64_t, uint32_t) = tc_libraries[library].dispatch;
	struct tc_arena *before = tc_current;
	int code = TC_CS_OK;

	if (tc_stack_is_shallow()) {
		return TC_SHALLOW;
	}
	tc_current = arena;
	while (arena->taken < max_events && arena->payload <= max_bytes && !arena->failed) {
		code = dispatch(handle, TC_DISPATCH_ONE_NONBLOCKING);
		if (code != TC_CS_OK) {
			break;
		}
		arena->taken++;
	}
	tc_current = before;
	return arena->failed ? TC_CS_NO_MEMORY : code;
}
