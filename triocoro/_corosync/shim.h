/* The shim between Python and Corosync's client libraries: what its units share, and what Python calls.
 *
 * The units:
 *   libraries.c   loads the libraries; connects, dispatches and finalizes, which all of them do alike
 *   fd.c          what a connection's fd tells, with either kind of IPC
 *   lib*.c        per library: its callbacks, and the calls that need more than the library's own function
 *   arena.c       where callbacks store events until Python decodes them
 *   pages.c       large payloads: takes their pages from the library, and copies them a piece at a time
 *   descriptors.c keeps libqb from closing file descriptors that are not its own
 *   creation.c    serializes the creation of handles, which libqb leaves unlocked
 *   iteration.c   cpg_iteration_*, so that a dying daemon cannot hang it
 *   namespaces.c  calls a function in the namespaces of another process
 *   stack.c       whether a thread's stack is large enough
 *
 * shim.cdef declares to Python the functions that it calls; cffi checks them against this header. The extension is
 * compiled with -fvisibility=hidden, so the wrappers below, which have the names of the libraries' own functions, cannot
 * be mistaken for these by another library.
 */
#ifndef TC_SHIM_H
#define TC_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "tables.h"

/* What a call may return besides a cs_error_t. */
enum {
	TC_MISSING = -1,     /* the library lacks the function */
	TC_FULL = -2,        /* no room for another request: wait until the fd is writable */
	TC_SHALLOW = -3,     /* the stack of this thread is too small for the library */
	TC_UNREACHABLE = -4, /* the namespaces of the daemon could not be entered */
	TC_LACKING = -5,     /* the library cannot get what it needs from the system, such as file descriptors */
};

/* --- libraries.c --- */

#define TC_NUMBER(NAME) TC_LIB##NAME,
enum { TC_LIBRARIES(TC_NUMBER) };

extern struct tc_functions tc_table;

/* A wrapper for each function of the table, under the function's own name; returns TC_MISSING where the library lacks it. */
#define TC_PROTOTYPE(name, parameters, arguments) int name parameters;
#define TC_PROTOTYPES(NAME) TC_##NAME##_FUNCTIONS(TC_PROTOTYPE)
TC_LIBRARIES(TC_PROTOTYPES)

struct tc_connection {
	uint64_t handle;
	int fd;
	uint32_t flags; /* in: their meaning depends on the library */
	uint32_t max_message_size;
	uint32_t quorum_type;
	int code;
	int error;            /* the errno, for TC_UNREACHABLE and TC_LACKING */
	const char *function; /* the function that `code` or `error` comes from */
};

const char *tc_load(int library, const char *soname);
const char *tc_symbol_name(int library, int index);
int tc_connect(int library, int pidfd, struct tc_connection *out);
int tc_finalize(int library, uint64_t handle);

struct tc_arena;
int tc_dispatch(int library, uint64_t handle, struct tc_arena *arena, uint32_t max_events, uint64_t max_bytes);

/* --- fd.c --- */

int tc_is_datagram(int fd);
int tc_max_datagram(int fd);
int tc_hung_up(int fd);
void tc_hang_up(int fd);
int tc_waiting(int fd);

/* --- arena.c --- */

/* The kinds of records, with the meaning of `value` and `extra`, and the layout of the bytes (u32, u64: integers). */
enum {
	TC_MESSAGE = 1,       /* extra: the sender; bytes: the payload */
	TC_LARGE_MESSAGE = 2, /* the same, with the payload in an allocation of its own */
	TC_CONFCHG = 3,       /* value: number of members; bytes: u32 left, u32 joined (numbers), then u32 nodeid, pid,
	                         reason of each member, of each that left, of each that joined */
	TC_TOTEM = 4,         /* extra: nodeid of the ring id; bytes: its u64 seq, u32 nodes */
	TC_GROUP_MEMBER = 5,  /* extra: the member; bytes: the name of the group */
	TC_QUORUM = 6,        /* value: whether quorate; bytes: u32 nodeid, u32 state of each node */
	TC_NODELIST = 7,      /* as TC_TOTEM */
	TC_EXPECTED = 8,      /* value: expected votes */
	TC_QUORATE = 9,       /* value: whether quorate; the rest as TC_TOTEM */
	TC_MEMBERSHIP = 10,   /* value: number of members; extra: nodeid of the ring id; bytes: its u64 seq, u32 left, u32
	                         joined (numbers), then the u32 nodeids of members, left, joined */
	TC_CMAP_ITEM = 11,    /* value: type; extra: length of the key; bytes: the key, the value */
	TC_CMAP_CHANGE = 12,  /* value: event; extra: the tracker; bytes: u32 type of the new value, u32 type of the old,
	                         u32 length of the key, u32 length of the new value, then the key, the new and old value */
	TC_SHUTDOWN = 13,     /* value: flags */
	TC_RING_STATUS = 14,  /* extra: length of the name; bytes: the name, the status */
	TC_EXTRA_INFO = 15,   /* value: nodeid; bytes: the extra information */
	TC_HUGE_MESSAGE = 16, /* as TC_LARGE_MESSAGE, with the payload in pages of its own (pages.c) */
};

struct tc_record {
	uint32_t kind;
	uint32_t value;
	uint64_t extra;
	uint64_t offset; /* of the bytes in the arena's data; for large and huge messages their address */
	uint64_t length; /* of the bytes */
};

struct tc_arena {
	uint32_t taken;  /* how many events this dispatch has taken from the library */
	uint32_t count;  /* how many records there are, */
	uint32_t room;   /* and how many there is room for */
	uint32_t failed; /* out of memory: an event is lost */
	uint64_t used;   /* bytes in use of `data`, */
	uint64_t size;   /* and its size */
	uint64_t payload; /* bytes of all records, large messages and fragments included */
	struct tc_record *records;
	char *data;
};

/* The initial-exec model needs no call of __tls_get_addr, and so no dependency on the dynamic linker's name. musl
 * reserves no space for a library that is loaded later, and would refuse to load it.
 */
#ifdef __GLIBC__
#define TC_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
#else
#define TC_THREAD_LOCAL __thread
#endif

/* The arena of the dispatch that this thread is in; NULL otherwise. */
extern TC_THREAD_LOCAL struct tc_arena *tc_current;

struct tc_arena *tc_arena_new(void);
void tc_arena_clear(struct tc_arena *arena);
void tc_arena_free(struct tc_arena *arena);

char *tc_arena_add(struct tc_arena *arena, uint32_t kind, uint32_t value, uint64_t extra, uint64_t length);
void tc_arena_add_huge(struct tc_arena *arena, uint64_t extra, char *payload, uint64_t length);
void tc_arena_add_ring(uint32_t kind, uint32_t value, uint32_t nodeid, uint64_t seq, const uint32_t *nodes,
	uint32_t count);
char *tc_put(char *to, const void *piece, size_t length);
uint64_t tc_client(uint32_t nodeid, uint32_t pid);

/* --- pages.c --- */

/* From so many bytes on, a message is huge. */
#define TC_HUGE (8 * 1024 * 1024)

/* About the size of a fragment of a message above the atomic size. */
#define TC_FRAGMENT (1024 * 1024)

char *tc_pages_take(char *from, size_t length);
void tc_pages_copy(char *to, uint64_t address, uint64_t done, uint64_t size);
void tc_pages_free(uint64_t address, uint64_t length);

/* --- creation.c --- */

void tc_begin_creation(uint64_t *handle);
void tc_end_creation(uint64_t *handle);

/* --- namespaces.c --- */

struct tc_namespace_call {
	int pidfd; /* of a process in the namespaces */
	void (*function)(void *argument);
	void *argument;
	const char *failed; /* out: the system call that failed, */
	int error;          /* and its errno */
};

int tc_call_in_namespaces(struct tc_namespace_call *call);

/* --- stack.c --- */

int tc_stack_is_shallow(void);

/* --- descriptors.c --- */

struct tc_opening {
	int first; /* a duplicate of fd 0, or -1 */
	int flags; /* the flags of fd 0 */
};

int tc_begin_opening(struct tc_opening *opening);
void tc_end_opening(struct tc_opening *opening);
int tc_has_address_space(void);
int tc_no_descriptor(void);

/* --- lib*.c --- */

/* Each connects `argument`, a struct tc_connection. They run in the namespaces of the daemon. */
void tc_open_cpg(void *argument);
void tc_open_votequorum(void *argument);
void tc_open_quorum(void *argument);
void tc_open_cmap(void *argument);
void tc_open_cfg(void *argument);

struct tc_allocation {
	uint64_t handle; /* in */
	int fd;          /* in: that of the handle */
	uint64_t size;   /* in */
	void *buffer;
	int code;
	int error;            /* the errno, for TC_UNREACHABLE and TC_LACKING */
	const char *function; /* the function that `code` or `error` comes from */
};

int64_t tc_cpg_multicast(uint64_t handle, int fd, const char *data, const uint32_t *lengths, uint32_t count);
int tc_cpg_multicast_fragmented(uint64_t handle, int fd, const char *data, uint64_t length);
int tc_cpg_iterate(uint64_t handle, int fd, uint32_t kind, const tc_cpg_name_t *group, struct tc_arena *arena,
	const char **function);
int tc_cpg_zcb_alloc(int pidfd, struct tc_allocation *allocation);
int tc_cpg_zcb_free(uint64_t handle, void *buffer, uint64_t size);
int tc_cpg_zcb_mcast_joined(uint64_t handle, int fd, void *buffer, uint64_t length);

int tc_votequorum_getinfo(uint64_t handle, uint32_t nodeid, tc_votequorum_info_t *out);
int tc_votequorum_get_extra_info(uint64_t handle, uint32_t nodeid, uint32_t *length, void *extra_info);

/* The size of a buffer for any value: 16 KiB at most, and the NUL after a string. */
#define TC_CMAP_ROOM (16 * 1024 + 64)

int tc_cmap_get(uint64_t handle, int fd, const char *key, char *value, size_t *length, uint32_t *type);
int tc_cmap_items(uint64_t handle, int fd, const char *prefix, struct tc_arena *arena, const char **function);
int tc_cmap_track_add(uint64_t handle, const char *key, int32_t events, uint64_t tracker, uint64_t *track);
int tc_cmap_track_delete(uint64_t handle, uint64_t track);
int tc_cmap_dispatch(uint64_t handle, uint32_t how);
int tc_cmap_finalize(uint64_t handle);

int tc_cfg_ring_status(uint64_t handle, struct tc_arena *arena);
int tc_cfg_get_node_addrs(uint64_t handle, uint32_t nodeid, uint32_t room, int *count,
	tc_cfg_node_address_t *addresses);
int tc_cfg_kill_node(uint64_t handle, int fd, uint32_t nodeid, const char *reason);
int tc_cfg_finalize_replied(uint64_t handle, int fd);

#endif
