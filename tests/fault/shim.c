// Stands between a process and the C library, and does to it what a machine can do: a disk that is full,
// read-only or slow, a loss of power, a clock that is set. Loaded by LD_PRELOAD.
//
// FAULT_FOLDER has a file `control`, which is mapped here and written by the test, and the folder `synced`.
// Only files in FAULT_STORE, the folder of the store, are touched.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// As `tests/fault/shim.rs` has it.
struct control {
    int64_t clock_ms; // added to the wall clock
    int64_t sync_ms;  // how long a sync takes longer
    int64_t refuse;   // ENOSPC: no file gets longer; EROFS: none is written
    int64_t copy;     // what is synced is copied to `synced`
};

static struct control none;
static volatile struct control *control = &none;
static const char *folder = "", *store = "";

__attribute__((constructor)) static void begin(void) {
    char path[PATH_MAX];
    folder = getenv("FAULT_FOLDER");
    store = getenv("FAULT_STORE");
    snprintf(path, sizeof path, "%s/control", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    if (fd < 0 || mapped == MAP_FAILED) abort();
    close(fd);
    control = mapped;
}

// Defines `name_real`, the function of the C library.
#define REAL(result, name, ...) \
    static result (*name##_real)(__VA_ARGS__); \
    if (!name##_real) name##_real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int is_in_store(const char *path) {
    size_t length = strlen(store);
    return length && !strncmp(path, store, length) && path[length] == '/';
}

static int store_path(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_in_store(path);
}

// Whether a file may not be written up to an end. A full disk takes what has its room already.
static int is_refused(int fd, off_t end) {
    char path[PATH_MAX];
    struct stat stat;
    int64_t refuse = control->refuse;
    if (!refuse) return 0;
    int kept = errno;
    int refused = store_path(fd, path) && !fstat(fd, &stat) && S_ISREG(stat.st_mode) &&
                  (refuse != ENOSPC || end > stat.st_size);
    errno = refused ? (int)refuse : kept;
    return refused;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (control->refuse && is_refused(fd, lseek(fd, 0, SEEK_CUR) + (off_t)count)) return -1;
    return write_real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    return is_refused(fd, at + (off_t)count) ? -1 : pwrite_real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return pwrite(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) {
    REAL(int, ftruncate, int, off_t);
    return is_refused(fd, length) ? -1 : ftruncate_real(fd, length);
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...);
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (control->refuse == EROFS && (flags & O_ACCMODE) != O_RDONLY && is_in_store(path)) {
        errno = EROFS;
        return -1;
    }
    return open_real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open(path, flags | O_LARGEFILE, mode);
}

// Copies a file as it is now. The copy counts once it has its name.
static int copy(const char *from, const char *to) {
    char bytes[1 << 16];
    ssize_t count = -1;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in >= 0 && out >= 0) {
        while ((count = read(in, bytes, sizeof bytes)) > 0)
            if (write(out, bytes, count) != count) break;
    }
    close(in);
    close(out);
    return count;
}

static int sync_file(int fd, int (*real)(int)) {
    char path[PATH_MAX], part[2 * PATH_MAX], whole[2 * PATH_MAX];
    struct stat stat;
    if (!(control->sync_ms || control->copy) || !store_path(fd, path) || fstat(fd, &stat) ||
        !S_ISREG(stat.st_mode))
        return real(fd);
    int64_t wait_ms = control->sync_ms;
    struct timespec wait = {wait_ms / 1000, wait_ms % 1000 * 1000000};
    nanosleep(&wait, NULL);
    if (!control->copy) return real(fd);
    // The file may be synced by two threads at a time, each with a copy of its own.
    const char *name = strrchr(path, '/') + 1;
    snprintf(part, sizeof part, "%s/synced/.%d-%s", folder, (int)gettid(), name);
    snprintf(whole, sizeof whole, "%s/synced/%s", folder, name);
    int copied = !copy(path, part);
    int result = real(fd);
    if (!copied || (!result && rename(part, whole))) abort();
    return result;
}

int fsync(int fd) {
    REAL(int, fsync, int);
    return sync_file(fd, fsync_real);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return sync_file(fd, fdatasync_real);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = clock_gettime_real(clock, now);
    if (!result && clock == CLOCK_REALTIME) {
        int64_t ms = now->tv_sec * INT64_C(1000) + now->tv_nsec / 1000000 + control->clock_ms;
        now->tv_nsec = now->tv_nsec % 1000000 + ms % 1000 * 1000000;
        now->tv_sec = ms / 1000;
    }
    return result;
}
