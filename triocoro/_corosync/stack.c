/* Whether the stack of the calling thread is large enough: the libraries put buffers of a megabyte on it. */
#include "shim.h"

#include <pthread.h>
#include <sys/auxv.h>
#include <sys/resource.h>

/* What a library's function may use, and some room for the functions that it calls. */
#define TC_STACK_NEEDED (1024 * 1024 + 192 * 1024)

/* The bounds of this thread's stack, found at its first call; `high` is 0 before that, and 1 if they are unknown. */
static TC_THREAD_LOCAL uintptr_t tc_stack_low;
static TC_THREAD_LOCAL uintptr_t tc_stack_high;

#ifndef __GLIBC__

/* The stack of a process's first thread grows up to a limit, but musl tells only how far it has grown so far. The first
 * thread's is the one near whose upper end the kernel has put the random bytes that AT_RANDOM points to.
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

int tc_stack_is_shallow(void)
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
	/* Outside the thread's own stack (on a greenlet's, for example) the size is unknown, and taken to be enough. */
	return here > tc_stack_low && here < tc_stack_high && here - tc_stack_low < TC_STACK_NEEDED;
}
