/* Where the callbacks leave what they are told: an array of records, and the bytes that these point at.
 *
 * Python code must not run below a C frame, so one dispatch fills an arena, and Python decodes it afterwards. A callback
 * finds its arena through a thread-local: the libraries give it no pointer of ours in every case.
 */
#ifndef TC_ARENA_H
#define TC_ARENA_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
	TC_MESSAGE = 1,       /* who; the payload */
	TC_LARGE_MESSAGE = 2, /* the same, the payload in a block of its own */
	TC_CONFCHG = 3,       /* n: members; u32 left, u32 joined, then (nodeid, pid, reason) of members, left, joined */
	TC_TOTEM = 4,         /* who: ring nodeid; u64 ring seq, u32 nodes */
	TC_GROUP_MEMBER = 5,  /* who; the group's name */
	TC_QUORUM = 6,        /* n: quorate; (nodeid, state) of all nodes */
	TC_NODELIST = 7,      /* who: ring nodeid; u64 ring seq, u32 nodes */
	TC_EXPECTED = 8,      /* n: expected votes */
	TC_QUORATE = 9,       /* n: quorate; who: ring nodeid; u64 ring seq, u32 nodes */
	TC_MEMBERSHIP = 10,   /* n: members; who: ring nodeid; u64 ring seq, u32 left, u32 joined, members, left, joined */
	TC_CMAP_ITEM = 11,    /* n: type; who: length of the key; the key, the value */
	TC_CMAP_CHANGE = 12,  /* n: event; who: tracker; u32 new and old type, u32 length of key and new; key, new, old */
	TC_SHUTDOWN = 13,     /* n: flags */
	TC_RING_STATUS = 14,  /* who: length of the name; the name, the status */
	TC_EXTRA_INFO = 15,   /* n: nodeid; the extra information */
};

/* Above this size a payload gets a block of its own: nothing is moved when the arena grows, and none of it is kept. */
#define TC_LARGE (64 * 1024)

/* What an arena may keep between two dispatches. */
#define TC_KEEP_DATA (2 * 1024 * 1024)
#define TC_KEEP_RECORDS (16 * 1024)

struct tc_record {
	uint32_t kind;
	uint32_t n;
	uint64_t who;    /* nodeid << 32 | pid */
	uint64_t at;     /* offset into the arena's data; an address for TC_LARGE_MESSAGE */
	uint64_t length;
};

struct tc_arena {
	uint32_t taken;
	uint32_t count;
	uint32_t room;
	uint32_t failed; /* out of memory: an event is lost */
	uint64_t used;
	uint64_t size;
	uint64_t payload; /* bytes of all events */
	struct tc_record *records;
	char *data;
};

/* initial-exec: no __tls_get_addr, thus no dependency on the dynamic linker's name. musl keeps no room for what is
 * loaded later, and refuses to load it.
 */
#ifdef __GLIBC__
#define TC_THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))
#else
#define TC_THREAD_LOCAL static __thread
#endif

TC_THREAD_LOCAL struct tc_arena *tc_current;

static void tc_arena_free(struct tc_arena *arena)
{
	if (arena != NULL) {
		free(arena->records);
		free(arena->data);
		free(arena);
	}
}

static struct tc_arena *tc_arena_new(void)
{
	struct tc_arena *arena = calloc(1, sizeof *arena);

	if (arena == NULL) {
		return NULL;
	}
	arena->room = 64;
	arena->size = 4096;
	arena->records = malloc(arena->room * sizeof *arena->records);
	arena->data = malloc(arena->size);
	if (arena->records == NULL || arena->data == NULL) {
		tc_arena_free(arena);
		return NULL;
	}
	return arena;
}

static void tc_arena_clear(struct tc_arena *arena)
{
	void *smaller;
	uint32_t i;

	for (i = 0; i < arena->count; i++) {
		if (arena->records[i].kind == TC_LARGE_MESSAGE) {
			free((void *)(uintptr_t)arena->records[i].at);
		}
	}
	arena->taken = arena->count = arena->failed = 0;
	arena->used = arena->payload = 0;
	if (arena->size > TC_KEEP_DATA && (smaller = realloc(arena->data, TC_KEEP_DATA)) != NULL) {
		arena->data = smaller;
		arena->size = TC_KEEP_DATA;
	}
	if (arena->room > TC_KEEP_RECORDS &&
	    (smaller = realloc(arena->records, TC_KEEP_RECORDS * sizeof *arena->records)) != NULL) {
		arena->records = smaller;
		arena->room = TC_KEEP_RECORDS;
	}
}

/* Add a record and room for its bytes, which the caller fills in; NULL if there is no arena or no memory. */
static char *tc_arena_add(struct tc_arena *arena, uint32_t kind, uint32_t n, uint64_t who, uint64_t length)
{
	struct tc_record *record;
	char *bytes;
	void *larger;

	if (arena == NULL) {
		return NULL;
	}
	if (arena->count == arena->room) {
		larger = realloc(arena->records, 2 * (size_t)arena->room * sizeof *record);
		if (larger == NULL) {
			goto failed;
		}
		arena->records = larger;
		arena->room *= 2;
	}
	record = &arena->records[arena->count];
	record->kind = kind;
	record->n = n;
	record->who = who;
	record->length = length;
	if (kind == TC_MESSAGE && length > TC_LARGE) {
		bytes = malloc(length);
		if (bytes == NULL) {
			goto failed;
		}
		record->kind = TC_LARGE_MESSAGE;
		record->at = (uint64_t)(uintptr_t)bytes;
	} else {
		/* Kept aligned, so that lists of integers can be stored in place. */
		uint64_t room = (length + 7) & ~(uint64_t)7;

		if (arena->size - arena->used < room) {
			uint64_t size = arena->size;

			while (size - arena->used < room) {
				size *= 2;
			}
			larger = realloc(arena->data, size);
			if (larger == NULL) {
				goto failed;
			}
			arena->data = larger;
			arena->size = size;
		}
		bytes = arena->data + arena->used;
		record->at = arena->used;
		arena->used += room;
	}
	arena->payload += length;
	arena->count++;
	return bytes;

failed:
	arena->failed = 1;
	return NULL;
}

static uint64_t tc_who(uint32_t nodeid, uint32_t pid)
{
	return (uint64_t)nodeid << 32 | pid;
}

/* Fill in a record's bytes piece by piece. Returns where the next piece goes. */
static char *tc_put(char *at, const void *piece, size_t length)
{
	return length == 0 ? at : (char *)memcpy(at, piece, length) + length;
}

/* A ring id and its nodes. */
static void tc_arena_add_ring(uint32_t kind, uint32_t n, uint32_t nodeid, uint64_t seq, const uint32_t *nodes,
	uint32_t count)
{
	char *bytes = tc_arena_add(tc_current, kind, n, nodeid, sizeof seq + (uint64_t)count * sizeof *nodes);

	if (bytes != NULL) {
		bytes = tc_put(bytes, &seq, sizeof seq);
		(void)tc_put(bytes, nodes, (size_t)count * sizeof *nodes);
	}
}

#endif
