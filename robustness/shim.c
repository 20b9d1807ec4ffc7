/*
 * Loaded before libc (LD_PRELOAD), this counts and logs what a process does to files under one folder, and ends the
 * process with SIGKILL at a step that was chosen beforehand; of a last write it may let half happen.
 *
 * A record of the log: kind, lengths of two paths and of the data, an offset; then paths and data. Steps of several
 * threads happen one after another, in the log's order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))
#define PATH (PATH_MAX + 64)

static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH];
static size_t root_length;
static int log_file = -1;
static long step, last_step;
static int last_is_torn;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

struct __attribute__((packed)) head {
    char kind;
    uint32_t path, other, data;
    int64_t offset;
};

static void record(char kind, const char *path, const char *other, int64_t offset, const void *data, size_t size) {
    struct head head = {kind, strlen(path), strlen(other), size, offset};
    struct iovec parts[] = {
        {&head, sizeof head}, {(void *)path, head.path}, {(void *)other, head.other}, {(void *)data, size}};
    int error = errno;
    if (REAL(writev)(log_file, parts, 4) < 0) abort();
    errno = error;
}

/* Count from here on. Steps are logged to a file that is open; before the last, if it is not 0, the process ends. */
void shim_arm(const char *folder, int file, long last, int torn) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    step = 0;
    last_step = last;
    last_is_torn = torn;
    log_file = file;
}

/* Write down that something was acknowledged. */
void shim_note(const char *text) {
    pthread_mutex_lock(&alone);
    record('A', "", "", 0, text, strlen(text));
    pthread_mutex_unlock(&alone);
}

static int ours(const char *path) {
    return log_file >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int path_of_file(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    int error = errno;
    ssize_t length = log_file < 0 ? -1 : readlink(link, path, PATH - 1);
    errno = error;
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

static int path_at(int folder, const char *name, char *path) {
    if (log_file < 0 || !name) return 0;
    if (*name == '/') {
        snprintf(path, PATH, "%s", name);
    } else {
        char link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, path, PATH - 1);
        if (length < 0) return 0;
        snprintf(path + length, PATH - length, "/%s", name);
    }
    return ours(path);
}

/* To be called before each step, alone; says whether half of it is to happen still. */
static int enter(int can_be_torn) {
    pthread_mutex_lock(&alone);
    if (++step != last_step) return 0;
    if (can_be_torn && last_is_torn) return 1;
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void leave(void) { pthread_mutex_unlock(&alone); }

static ssize_t write_parts(int file, const struct iovec *parts, int count, int64_t at) {
    char path[PATH];
    if (!path_of_file(file, path)) {
        return at < 0 ? REAL(writev)(file, parts, count) : REAL(pwritev)(file, parts, count, at);
    }
    size_t size = 0, done = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    char *data = malloc(size + 1);
    for (int i = 0; i < count; done += parts[i++].iov_len) memcpy(data + done, parts[i].iov_base, parts[i].iov_len);
    int is_torn = enter(size > 1);
    struct stat status;
    int64_t offset = at;
    if (at < 0) {
        int is_appended = fcntl(file, F_GETFL) & O_APPEND;
        offset = is_appended && !fstat(file, &status) ? status.st_size : lseek(file, 0, SEEK_CUR);
    }
    size_t wanted = is_torn ? size / 2 : size;
    ssize_t written = at < 0 ? REAL(write)(file, data, wanted) : REAL(pwrite)(file, data, wanted, at);
    if (written > 0) record('W', path, "", offset, data, written);
    if (is_torn) kill(getpid(), SIGKILL);
    leave();
    free(data);
    return written;
}

ssize_t write(int file, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    return log_file < 0 ? REAL(write)(file, data, size) : write_parts(file, &part, 1, -1);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return log_file < 0 ? REAL(writev)(file, parts, count) : write_parts(file, parts, count, -1);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    struct iovec part = {(void *)data, size};
    return log_file < 0 ? REAL(pwrite)(file, data, size, at) : write_parts(file, &part, 1, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) { return pwrite(file, data, size, at); }

/* A call on a file that is a step, with its record if it succeeded. */
#define FILE_STEP(kind, file, offset, call)            \
    char path[PATH];                                   \
    if (!path_of_file(file, path)) return call;        \
    enter(0);                                          \
    int result = call;                                 \
    if (!result) record(kind, path, "", offset, "", 0); \
    leave();                                           \
    return result

int fsync(int file) { FILE_STEP('F', file, 0, REAL(fsync)(file)); }
int fdatasync(int file) { FILE_STEP('F', file, 0, REAL(fdatasync)(file)); }
int ftruncate(int file, off_t size) { FILE_STEP('T', file, size, REAL(ftruncate)(file, size)); }
int ftruncate64(int file, off64_t size) { FILE_STEP('T', file, size, REAL(ftruncate64)(file, size)); }

/* A call on one or two names that is a step, likewise. */
#define NAME_STEP(kind, folder, name, other_folder, other_name, call) \
    char path[PATH], other[PATH] = "";                                \
    int counts = path_at(folder, name, path);                         \
    if (*other_name && !path_at(other_folder, other_name, other)) counts = 0; \
    if (!counts) return call;                                         \
    enter(0);                                                         \
    int result = call;                                                \
    if (!result) record(kind, path, other, 0, "", 0);                 \
    leave();                                                          \
    return result

int rename(const char *from, const char *to) {
    NAME_STEP('R', AT_FDCWD, from, AT_FDCWD, to, REAL(rename)(from, to));
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    NAME_STEP('R', from_folder, from, to_folder, to, REAL(renameat)(from_folder, from, to_folder, to));
}
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    NAME_STEP('R', from_folder, from, to_folder, to, REAL(renameat2)(from_folder, from, to_folder, to, flags));
}
int link(const char *from, const char *to) { NAME_STEP('L', AT_FDCWD, from, AT_FDCWD, to, REAL(link)(from, to)); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    NAME_STEP('L', from_folder, from, to_folder, to, REAL(linkat)(from_folder, from, to_folder, to, flags));
}
int unlink(const char *name) { NAME_STEP('U', AT_FDCWD, name, 0, "", REAL(unlink)(name)); }
int unlinkat(int folder, const char *name, int flags) {
    NAME_STEP('U', folder, name, 0, "", REAL(unlinkat)(folder, name, flags));
}
int remove(const char *name) { NAME_STEP('U', AT_FDCWD, name, 0, "", REAL(remove)(name)); }
int rmdir(const char *name) { NAME_STEP('U', AT_FDCWD, name, 0, "", REAL(rmdir)(name)); }
int mkdir(const char *name, mode_t mode) { NAME_STEP('M', AT_FDCWD, name, 0, "", REAL(mkdir)(name, mode)); }
int mkdirat(int folder, const char *name, mode_t mode) {
    NAME_STEP('M', folder, name, 0, "", REAL(mkdirat)(folder, name, mode));
}

/* Opening is a step where it makes a file or empties one. */
static char step_of_opening(int folder, const char *name, int flags, char *path) {
    struct stat status;
    if (!(flags & (O_CREAT | O_TRUNC)) || !path_at(folder, name, path)) return 0;
    int error = errno;
    int exists = !stat(path, &status);
    errno = error;
    if (!exists) return flags & O_CREAT ? 'C' : 0;
    return flags & O_TRUNC && status.st_size ? 'T' : 0;
}

#define OPENING(folder, name, flags, succeeded, type, call)     \
    char path[PATH];                                            \
    char kind = step_of_opening(folder, name, flags, path);     \
    if (!kind) return call;                                     \
    enter(0);                                                   \
    type result = call;                                         \
    if (succeeded) record(kind, path, "", 0, "", 0);            \
    leave();                                                    \
    return result

#define MODE                                        \
    va_list rest;                                   \
    va_start(rest, flags);                          \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest)

int open(const char *name, int flags, ...) {
    MODE;
    OPENING(AT_FDCWD, name, flags, result >= 0, int, REAL(open)(name, flags, mode));
}
int open64(const char *name, int flags, ...) {
    MODE;
    OPENING(AT_FDCWD, name, flags, result >= 0, int, REAL(open64)(name, flags, mode));
}
int openat(int folder, const char *name, int flags, ...) {
    MODE;
    OPENING(folder, name, flags, result >= 0, int, REAL(openat)(folder, name, flags, mode));
}
int openat64(int folder, const char *name, int flags, ...) {
    MODE;
    OPENING(folder, name, flags, result >= 0, int, REAL(openat64)(folder, name, flags, mode));
}

static int flags_of(const char *mode) {
    return *mode == 'w' ? O_CREAT | O_TRUNC : *mode == 'a' ? O_CREAT : 0;
}

FILE *fopen(const char *name, const char *mode) {
    OPENING(AT_FDCWD, name, flags_of(mode), result, FILE *, REAL(fopen)(name, mode));
}
FILE *fopen64(const char *name, const char *mode) {
    OPENING(AT_FDCWD, name, flags_of(mode), result, FILE *, REAL(fopen64)(name, mode));
}
