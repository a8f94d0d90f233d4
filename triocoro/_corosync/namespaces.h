/* Call a C function inside the namespaces of another process, from any thread of this one.
 *
 * A thread cannot simply setns(2) there and back: into a user namespace never, and out of a mount namespace neither. So a
 * child does it that shares our memory and our files but not our namespaces: what the function leaves in memory, and the
 * descriptors it opens, are ours. The calling thread is suspended meanwhile, and the child runs on its thread-locals.
 */
#ifndef TC_NAMESPACES_H
#define TC_NAMESPACES_H

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

struct tc_visit {
	int pidfd;
	pid_t parent;
	void (*function)(void *argument);
	void *argument;
	const char *failed; /* the system call that failed, */
	int error;          /* and its errno */
	int done;
};

static int tc_visitor(void *pointer)
{
	struct tc_visit *visit = pointer;
	int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);

	/* EINVAL: the user namespace is our own already, which cannot be entered anew. */
	if (setns(visit->pidfd, CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0 &&
	    (errno != EINVAL || setns(visit->pidfd, CLONE_NEWNET | CLONE_NEWNS) != 0)) {
		visit->failed = "setns";
		visit->error = errno;
		_exit(1);
	}
	/* Root of the host is nobody in an ordinary user's namespace. Raw calls: glibc's would change all threads. */
	if (geteuid() != 0) {
		(void)syscall(SYS_setresgid, 0, 0, 0);
		(void)syscall(SYS_setresuid, 0, 0, 0);
	}
	/* All this may have cleared these two; the memory that dumpable belongs to is our parent's. */
	if (dumpable == 1) {
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	}
	/* The function may wait for a frozen daemon: do not survive our parent. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() == visit->parent) {
		visit->function(visit->argument);
		visit->done = 1;
	}
	_exit(0);
}

/* 0, or -1 with `failed` and `error` filled in. */
static int tc_visit_namespaces(struct tc_visit *visit)
{
	sigset_t all, before;
	char *stack;
	pid_t child;
	int status;

	visit->parent = getpid();
	visit->failed = NULL;
	visit->error = visit->done = 0;
	stack = mmap(NULL, TC_CHILD_STACK, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED) {
		visit->failed = "mmap";
		visit->error = errno;
		return -1;
	}
	mprotect(stack, 4096, PROT_NONE);
	/* A signal handler must not run in the child: it would run on our memory, in a wrong process. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* Exit signal 0: no SIGCHLD, and no wait(2) that is not told __WCLONE ever sees this child. */
	child = clone(tc_visitor, stack + TC_CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES, visit);
	if (child == -1) {
		visit->failed = "clone";
		visit->error = errno;
	} else {
		while (waitpid(child, &status, __WCLONE) == -1 && errno == EINTR) {
		}
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(stack, TC_CHILD_STACK);
	if (visit->failed == NULL && !visit->done) {
		visit->failed = "the helper process";
		visit->error = ECHILD;
	}
	return visit->failed == NULL ? 0 : -1;
}

#endif
