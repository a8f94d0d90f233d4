/* Payloads of many megabytes: their pages change hands, and are then copied a piece at a time.
 *
 * libcpg puts the fragments of a message together in memory from malloc(3), passes that to our callback, and frees it
 * when the callback returns. The callback runs on the thread of the event loop, so it must not copy all of a message
 * that may have hundreds of megabytes. It moves the pages to a mapping of ours instead (mremap(2)), and libcpg frees
 * empty ones. Python then copies the payload in pieces, and lets other tasks run in between.
 */
#include "shim.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static uintptr_t tc_page_size(void)
{
	return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* Move `length` bytes, at least a page of them, to a mapping of their own. Returns where they are now, at the same place
 * within a page; NULL if there is no memory.
 */
char *tc_pages_take(char *from, size_t length)
{
	uintptr_t page = tc_page_size();
	uintptr_t inside = (uintptr_t)from % page;
	size_t head = inside == 0 ? 0 : page - inside;
	size_t body = (length - head) / page * page;
	char *map = mmap(NULL, inside + length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *to = map + inside;

	if (map == MAP_FAILED) {
		return NULL;
	}
	/* Linux before 5.7 cannot do it, nor is it possible with memory of every allocator. */
	if (mremap(from + head, body, body, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to + head) == MAP_FAILED) {
		memcpy(to + head, from + head, body);
	}
	memcpy(to, from, head);
	memcpy(to + head + body, from + head + body, length - head - body);
	return to;
}

/* Copy the next `size` bytes behind the first `done` ones, and give their pages back to the system. */
void tc_pages_copy(char *to, uint64_t address, uint64_t done, uint64_t size)
{
	uintptr_t page = tc_page_size();
	uintptr_t from = (uintptr_t)address + done;
	uintptr_t first = from / page * page;
	uintptr_t end = (from + size) / page * page;

	memcpy(to + done, (const char *)from, size);
	if (end > first) {
		(void)madvise((void *)first, end - first, MADV_DONTNEED);
	}
}

void tc_pages_free(uint64_t address, uint64_t length)
{
	uintptr_t inside = (uintptr_t)address % tc_page_size();

	(void)munmap((void *)((uintptr_t)address - inside), inside + length);
}
