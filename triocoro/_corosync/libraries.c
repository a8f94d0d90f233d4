/* Loading the libraries, and what all of them do alike: connecting, dispatching, finalizing. */
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

struct tc_functions tc_table;

/* --- the wrappers --- */

#define TC_WRAPPER(name, parameters, arguments) \
	int name parameters { return tc_table.name == NULL ? TC_MISSING : (int)tc_table.name arguments; }
#define TC_WRAPPERS(NAME) TC_##NAME##_FUNCTIONS(TC_WRAPPER)

TC_LIBRARIES(TC_WRAPPERS)

/* --- the libraries --- */

struct tc_symbol {
	const char *name;
	void *slot; /* where tc_table has the function */
};

#define TC_SYMBOL(name, parameters, arguments) {#name, &tc_table.name},
#define TC_SYMBOLS(NAME) \
	static const struct tc_symbol tc_symbols_##NAME[] = {TC_##NAME##_FUNCTIONS(TC_SYMBOL){NULL, NULL}};

TC_LIBRARIES(TC_SYMBOLS)

#define TC_ROW(NAME, prefix, open, dispatch, finalize) \
	[TC_LIB##NAME] = {tc_symbols_##NAME, open, dispatch, finalize, prefix##_fd_get, #prefix "_fd_get"}

static const struct tc_library {
	const struct tc_symbol *symbols; /* a NULL name ends them */
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

/* The names of a library's functions, by index; NULL after the last. */
const char *tc_symbol_name(int library, int index)
{
	return tc_libraries[library].symbols[index].name;
}

/* Load a library, and look up its functions; those that it lacks stay NULL. Returns what dlerror(3) says, or NULL. */
const char *tc_load(int library, const char *soname)
{
	const struct tc_symbol *symbol;
	void *loaded = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
	void *found;

	if (loaded == NULL) {
		return dlerror();
	}
	for (symbol = tc_libraries[library].symbols; symbol->name != NULL; symbol++) {
		found = dlsym(loaded, symbol->name);
		/* ISO C has no conversion between pointers to objects and to functions; memcpy(3) needs none. */
		memcpy(symbol->slot, &found, sizeof found);
	}
	return NULL;
}

/* --- connections --- */

struct tc_attempt {
	void (*open)(void *connection);
	struct tc_connection *out;
};

static void tc_open(void *argument)
{
	struct tc_attempt *attempt = argument;

	errno = 0;
	if (tc_has_address_space()) {
		attempt->open(attempt->out);
	} else {
		attempt->out->function = "mmap";
		attempt->out->code = TC_LACKING;
	}
	attempt->out->error = errno;
}

/* One attempt to connect. Sets out->code. */
static void tc_attempt_to_connect(const struct tc_library *its, int pidfd, struct tc_connection *out)
{
	struct tc_attempt attempt = {.open = its->open, .out = out};
	struct tc_namespace_call call = {.pidfd = pidfd, .function = tc_open, .argument = &attempt};
	struct tc_opening opening;
	int entered = 0;

	out->error = tc_begin_opening(&opening);
	if (out->error != 0) {
		out->function = "socket";
		out->code = TC_LACKING;
	} else {
		tc_begin_creation(&out->handle);
		if (pidfd < 0) {
			tc_open(&attempt);
		} else {
			entered = tc_call_in_namespaces(&call);
		}
		tc_end_creation(&out->handle);
		if (entered != 0) {
			out->function = call.failed;
			out->error = call.error;
			out->code = TC_UNREACHABLE;
		} else if (out->code != TC_CS_OK && (out->error == EMFILE || out->error == ENFILE)) {
			out->code = TC_LACKING;
		}
	}
	tc_end_opening(&opening);
}

/* Connect in the namespaces of `pidfd`, or in our own if it is negative. Returns out->code. */
int tc_connect(int library, int pidfd, struct tc_connection *out)
{
	const struct tc_library *its = &tc_libraries[library];
	int attempts;

	/* libqb 2.0.6 fails a connect now and then for no reason, so one failure of that kind is no proof. */
	for (attempts = 0; attempts < 2; attempts++) {
		out->handle = 0;
		tc_attempt_to_connect(its, pidfd, out);
		if (out->code == TC_CS_OK) {
			out->function = its->fd_get_name;
			out->code = its->fd_get(out->handle, &out->fd);
		}
		if (out->code == TC_CS_OK) {
			break;
		}
		/* Some failures leave the handle open; for a handle that is gone already, this does nothing. */
		if (out->handle != 0) {
			(void)its->finalize(out->handle);
		}
		if (out->code != TC_CS_LIBRARY) {
			break;
		}
	}
	return out->code;
}

int tc_finalize(int library, uint64_t handle)
{
	return tc_libraries[library].finalize(handle);
}

/* Take events that are waiting into the arena, until there are no more, or `max_events` were taken, or their payloads
 * exceed `max_bytes`. Never waits.
 */
int tc_dispatch(int library, uint64_t handle, struct tc_arena *arena, uint32_t max_events, uint64_t max_bytes)
{
	int (*dispatch)(uint64_t, uint32_t) = tc_libraries[library].dispatch;
	struct tc_arena *before = tc_current;
	uint32_t count;
	int code = TC_CS_OK;

	if (tc_stack_is_shallow()) {
		return TC_SHALLOW;
	}
	tc_current = arena;
	while (arena->taken < max_events && arena->payload <= max_bytes && !arena->failed) {
		count = arena->count;
		code = dispatch(handle, TC_DISPATCH_ONE_NONBLOCKING);
		if (code != TC_CS_OK) {
			break;
		}
		arena->taken++;
		if (arena->count == count) {
			/* Most likely a fragment: the library has copied about that much, and called no callback. */
			arena->payload += TC_FRAGMENT;
		}
	}
	tc_current = before;
	return arena->failed ? TC_CS_NO_MEMORY : code;
}
