/* Arenas: where callbacks store events until Python decodes them.
 *
 * Python code must not run below a C frame, so the callbacks of one dispatch only append to an arena, which Python decodes
 * after the dispatch has returned. An arena is an array of records, and the bytes that they refer to. A callback finds
 * its arena in a thread-local, as not every callback is passed a pointer of ours.
 */
#include "shim.h"

#include <stdlib.h>
#include <string.h>

/* A larger payload gets an allocation of its own, so that it is not moved when the arena grows, nor kept afterwards. */
#define TC_LARGE (64 * 1024)

/* The most that an arena keeps for its next dispatch. */
#define TC_KEEP_DATA (2 * 1024 * 1024)
#define TC_KEEP_RECORDS (16 * 1024)

TC_THREAD_LOCAL struct tc_arena *tc_current;

void tc_arena_free(struct tc_arena *arena)
{
	if (arena != NULL) {
		free(arena->records);
		free(arena->data);
		free(arena);
	}
}

struct tc_arena *tc_arena_new(void)
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

void tc_arena_clear(struct tc_arena *arena)
{
	void *smaller;
	uint32_t i;

	for (i = 0; i < arena->count; i++) {
		if (arena->records[i].kind == TC_LARGE_MESSAGE) {
			free((void *)(uintptr_t)arena->records[i].offset);
		} else if (arena->records[i].kind == TC_HUGE_MESSAGE && arena->records[i].offset != 0) {
			tc_pages_free(arena->records[i].offset, arena->records[i].length);
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

/* Add a record, and return where the caller must store its `length` bytes; NULL if there is no arena, or no memory. */
char *tc_arena_add(struct tc_arena *arena, uint32_t kind, uint32_t value, uint64_t extra, uint64_t length)
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
	record->value = value;
	record->extra = extra;
	record->length = length;
	if (kind == TC_MESSAGE && length > TC_LARGE) {
		bytes = malloc(length);
		if (bytes == NULL) {
			goto failed;
		}
		record->kind = TC_LARGE_MESSAGE;
		record->offset = (uint64_t)(uintptr_t)bytes;
	} else {
		/* Records start at multiples of 8, so that Python can read their integers in place. */
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
		record->offset = arena->used;
		arena->used += room;
	}
	arena->payload += length;
	arena->count++;
	return bytes;

failed:
	arena->failed = 1;
	return NULL;
}

/* Add a record of a huge message, whose pages are taken from the library. */
void tc_arena_add_huge(struct tc_arena *arena, uint64_t extra, char *payload, uint64_t length)
{
	struct tc_record *record;
	char *pages;

	if (tc_arena_add(arena, TC_HUGE_MESSAGE, 0, extra, 0) == NULL) {
		return;
	}
	record = &arena->records[arena->count - 1];
	pages = tc_pages_take(payload, length);
	arena->failed |= pages == NULL;
	record->offset = (uint64_t)(uintptr_t)pages;
	record->length = length;
	arena->payload += length;
}

/* A client of CPG in one integer, which is what Python looks senders up by. */
uint64_t tc_client(uint32_t nodeid, uint32_t pid)
{
	return (uint64_t)nodeid << 32 | pid;
}

/* Copy one piece of a record's bytes. Returns where the next piece goes. */
char *tc_put(char *to, const void *piece, size_t length)
{
	/* Without a piece, `piece` may be NULL, which memcpy(3) does not allow. */
	return length == 0 ? to : (char *)memcpy(to, piece, length) + length;
}

/* Add a record of a ring id and the nodes of its ring. */
void tc_arena_add_ring(uint32_t kind, uint32_t value, uint32_t nodeid, uint64_t seq, const uint32_t *nodes,
	uint32_t count)
{
	char *bytes = tc_arena_add(tc_current, kind, value, nodeid, sizeof seq + (uint64_t)count * sizeof *nodes);

	if (bytes != NULL) {
		bytes = tc_put(bytes, &seq, sizeof seq);
		(void)tc_put(bytes, nodes, (size_t)count * sizeof *nodes);
	}
}
