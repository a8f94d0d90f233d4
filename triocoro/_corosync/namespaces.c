/* Calling a C function in the namespaces of another process, from any thread of this one.
 *
 * A thread cannot do it with setns(2), which refuses user namespaces to processes with several threads, and mount
 * namespaces to threads that share their root and working directory. So a child process enters them: it shares our
 * memory and our file descriptors, but not our namespaces. What the function stores in memory, and the descriptors that
 * it opens, are ours.
 *
 * What a child of vfork(2) must not do, this child may, because the thread that has called clone(2) is suspended until
 * the child has ended, and the child runs in its place:
 * - It has a stack of its own, so it does not overwrite the frames of the suspended thread, and it may return from
 *   functions.
 * - It uses the thread-locals of the suspended thread. For the C library it is that thread: locks, errno and malloc(3)
 *   work between it and our other threads, which run on.
 * - All signals are blocked, so no handler of ours runs in a process that is not ours.
 * - It ends with _exit(2), so nothing that is registered for the end of our process runs.
 */
#include "shim.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __WCLONE
#define __WCLONE 0x80000000
#endif

#define TC_CHILD_STACK (8 * 1024 * 1024)

struct tc_child {
	struct tc_namespace_call *call;
	pid_t parent;
	int done;
};

static int tc_run_child(void *argument)
{
	struct tc_child *child = argument;
	struct tc_namespace_call *call = child->call;
	int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);

	/* EINVAL: we are in that user namespace already, and it cannot be entered anew. */
	if (setns(call->pidfd, CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0 &&
	    (errno != EINVAL || setns(call->pidfd, CLONE_NEWNET | CLONE_NEWNS) != 0)) {
		call->failed = "setns";
		call->error = errno;
		_exit(1);
	}
	/* In an ordinary user's namespace, the host's root is mapped to nobody: become the namespace's own root. Bare
	 * system calls, since the C library's functions would change the user of all threads.
	 */
	if (geteuid() != 0) {
		(void)syscall(SYS_setresgid, 0, 0, 0);
		(void)syscall(SYS_setresuid, 0, 0, 0);
	}
	/* A change of user clears the next two attributes. "Dumpable" belongs to the memory, which is our parent's. */
	if (dumpable == 1) {
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	}
	/* The function may wait for a frozen daemon, and must not outlive our parent doing so. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() == child->parent) {
		call->function(call->argument);
		child->done = 1;
	}
	_exit(0);
}

/* Returns 0, or -1 with `failed` and `error` set. */
int tc_call_in_namespaces(struct tc_namespace_call *call)
{
	struct tc_child child = {.call = call, .parent = getpid()};
	sigset_t all, before;
	char *stack;
	pid_t pid;
	int status;

	call->failed = NULL;
	call->error = 0;
	stack = mmap(NULL, TC_CHILD_STACK, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED) {
		call->failed = "mmap";
		call->error = errno;
		return -1;
	}
	mprotect(stack, 4096, PROT_NONE); /* a guard page */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* Exit signal 0: no SIGCHLD, and only a wait(2) with __WCLONE sees this child, so none of Python's does. */
	pid = clone(tc_run_child, stack + TC_CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES, &child);
	if (pid == -1) {
		call->failed = "clone";
		call->error = errno;
	} else {
		while (waitpid(pid, &status, __WCLONE) == -1 && errno == EINTR) {
		}
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(stack, TC_CHILD_STACK);
	if (call->failed == NULL && !child.done) {
		call->failed = "the helper process";
		call->error = ECHILD;
	}
	return call->failed == NULL ? 0 : -1;
}
