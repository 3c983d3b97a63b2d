/* Lets componentize-qjs build the same bytes from the same source. It keeps an image of a JavaScript
   engine that has asked for the time and for random numbers: loaded before the C library, this answers
   both with constants, to nobody but componentize-qjs. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int is_asked_by_it(void *caller) {
    Dl_info from;
    return dladdr(caller, &from) && from.dli_fname && strstr(from.dli_fname, "componentize-qjs");
}

ssize_t getrandom(void *bytes, size_t length, unsigned flags) {
    if (!is_asked_by_it(__builtin_return_address(0)))
        return syscall(SYS_getrandom, bytes, length, flags);
    memset(bytes, 7, length);
    return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!is_asked_by_it(__builtin_return_address(0)))
        return (int)syscall(SYS_clock_gettime, clock, time);
    *time = (struct timespec){0};
    return 0;
}
