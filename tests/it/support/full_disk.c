/* Lets a disk be full: while the file $FULL_DISK_WHILE exists, writing to files below $FULL_DISK_BELOW fails with ENOSPC,
 * after half of the bytes, as a disk does on which a little room is left. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd) {
    const char *flag = getenv("FULL_DISK_WHILE"), *below = getenv("FULL_DISK_BELOW");
    char link[64], path[PATH_MAX];
    if (!flag || !below || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

static ssize_t no_space(void) {
    errno = ENOSPC;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (!is_full(fd)) return real(fd, bytes, len);
    return len > 4096 ? real(fd, bytes, len / 2) : no_space();
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return is_full(fd) ? no_space() : real(fd, bytes, len, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    return is_full(fd) ? no_space() : real(fd, parts, count);
}
