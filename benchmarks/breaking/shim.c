/* LD_PRELOAD: the calls to the disk below one folder are counted, and one of them, or some in a row, goes wrong.

   Built and told what to do by shim.py. A call is a step where its path, or that of its descriptor, lies below the
   folder. Memory maps and what glibc does within itself (the reading behind fopen) are not seen. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, FAIL, FILL, TEAR, AFTER };

static char folder[PATH_MAX];
static size_t length;
static int log_fd = -1, how, error_number, only_space;
static long first, last, count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Steps below `path` are counted from 1 and written to the descriptor `log`, a line each: number, call, whether it takes
   space, bytes in the file before it, path, and after ` > ` that of a rename's target. Those from `from` to `to` go wrong, only
   those that take space where `space` is true. */
void arm(const char *path, int log, int way, int error, int space, long from, long to) {
  length = strlen(strncpy(folder, path, sizeof folder - 1));
  log_fd = log; how = way; error_number = error; only_space = space; first = from; last = to; count = 0;
}

static int is_below(const char *path) {
  return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static const char *link_of(const char *name, char *into) {
  ssize_t size = readlink(name, into, PATH_MAX - 1);
  into[size < 0 ? 0 : size] = 0;
  return into;
}

static const char *of_fd(int fd, char *into) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  return link_of(name, into);
}

static const char *of_name(int at, const char *path, char *into) {
  if (!path || path[0] == '/') return path ? path : "";
  if (at == AT_FDCWD) link_of("/proc/self/cwd", into); else of_fd(at, into);
  size_t used = strlen(into);
  snprintf(into + used, PATH_MAX - used, "/%s", path);
  return into;
}

static void end(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

/* What becomes of a step: COUNT lets it happen, FAIL has set errno, FILL and TEAR do half of it, AFTER ends then. */
static int step(const char *call, const char *path, const char *to, int takes_space) {
  int saved = errno;
  if (!is_below(path)) return COUNT;
  long n = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
  char line[2 * PATH_MAX + 64];
  struct stat there;
  long before = stat(path, &there) ? 0 : there.st_size;
  int size = snprintf(line, sizeof line, "%ld %s %d %ld %s", n, call, takes_space, before, path + length);
  size += snprintf(line + size, sizeof line - size, to ? " > %s\n" : "\n", to && is_below(to) ? to + length : "");
  if (log_fd >= 0 && REAL(write)(log_fd, line, size)) {}
  errno = saved;
  if (how == COUNT || n < first || n > last || (only_space && !takes_space)) return COUNT;
  if (how == FILL && n > first) { errno = ENOSPC; return FAIL; }
  if (how == FAIL) errno = error_number;
  return how;
}

#define LIKE_ANY(type, name, call, parameters, arguments, path, takes_space, failed)                                   \
  type name parameters {                                                                                               \
    char into[PATH_MAX];                                                                                               \
    int verdict = step(call, path, TO, takes_space);                                                                       \
    if (verdict == FAIL) return failed;                                                                                \
    type result = REAL(name) arguments;                                                                                \
    if (verdict == AFTER || verdict == TEAR) end();                                                                    \
    return result;                                                                                                     \
  }

#define LIKE_WRITE(name, parameters, call, half)                                                                       \
  ssize_t name parameters {                                                                                            \
    char into[PATH_MAX];                                                                                               \
    int verdict = step("write", of_fd(fd, into), NULL, 1);                                                                   \
    if (verdict == FAIL) return -1;                                                                                    \
    ssize_t result = verdict == FILL || verdict == TEAR ? half : call;                                                 \
    if (verdict == AFTER || verdict == TEAR) end();                                                                    \
    return result;                                                                                                     \
  }

LIKE_WRITE(write, (int fd, const void *data, size_t size), REAL(write)(fd, data, size),
           REAL(write)(fd, data, (size + 1) / 2))
LIKE_WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), REAL(pwrite)(fd, data, size, at),
           REAL(pwrite)(fd, data, (size + 1) / 2, at))
LIKE_WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), REAL(pwrite64)(fd, data, size, at),
           REAL(pwrite64)(fd, data, (size + 1) / 2, at))

#define TO NULL
#define FD of_fd(fd, into)
#define NAME of_name(AT_FDCWD, path, into)
#define NAME_AT of_name(at, path, into)

LIKE_ANY(ssize_t, read, "read", (int fd, void *data, size_t size), (fd, data, size), FD, 0, -1)
LIKE_ANY(ssize_t, pread, "read", (int fd, void *data, size_t size, off_t from), (fd, data, size, from), FD, 0, -1)
LIKE_ANY(ssize_t, pread64, "read", (int fd, void *data, size_t size, off64_t from), (fd, data, size, from), FD, 0, -1)
LIKE_ANY(int, fsync, "fsync", (int fd), (fd), FD, 1, -1)
LIKE_ANY(int, fdatasync, "fsync", (int fd), (fd), FD, 1, -1)
LIKE_ANY(int, ftruncate, "truncate", (int fd, off_t size), (fd, size), FD, 0, -1)
LIKE_ANY(int, ftruncate64, "truncate", (int fd, off64_t size), (fd, size), FD, 0, -1)
#undef TO
#define TO to
LIKE_ANY(int, rename, "rename", (const char *path, const char *to), (path, to), NAME, 1, -1)
LIKE_ANY(int, renameat, "rename", (int at, const char *path, int at2, const char *to), (at, path, at2, to), NAME_AT, 1,
         -1)
#undef TO
#define TO NULL
LIKE_ANY(int, link, "link", (const char *path, const char *to), (path, to), NAME, 1, -1)
LIKE_ANY(int, unlink, "unlink", (const char *path), (path), NAME, 0, -1)
LIKE_ANY(int, unlinkat, "unlink", (int at, const char *path, int flags), (at, path, flags), NAME_AT, 0, -1)
LIKE_ANY(int, rmdir, "rmdir", (const char *path), (path), NAME, 0, -1)
LIKE_ANY(int, mkdir, "mkdir", (const char *path, mode_t mode), (path, mode), NAME, 1, -1)
LIKE_ANY(int, mkdirat, "mkdir", (int at, const char *path, mode_t mode), (at, path, mode), NAME_AT, 1, -1)
LIKE_ANY(DIR *, opendir, "list", (const char *path), (path), NAME, 0, NULL)
LIKE_ANY(FILE *, fopen, "open", (const char *path, const char *mode), (path, mode), NAME, mode[0] != 'r', NULL)
LIKE_ANY(FILE *, fopen64, "open", (const char *path, const char *mode), (path, mode), NAME, mode[0] != 'r', NULL)

#define LIKE_OPEN(name, parameters, arguments, path)                                                                   \
  int name parameters {                                                                                                \
    char into[PATH_MAX];                                                                                               \
    va_list more;                                                                                                      \
    va_start(more, flags);                                                                                             \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;                                          \
    va_end(more);                                                                                                      \
    int verdict = step("open", path, NULL, (flags & O_CREAT) != 0);                                                          \
    if (verdict == FAIL) return -1;                                                                                    \
    int result = REAL(name) arguments;                                                                                 \
    if (verdict == AFTER || verdict == TEAR) end();                                                                    \
    return result;                                                                                                     \
  }

LIKE_OPEN(open, (const char *path, int flags, ...), (path, flags, mode), NAME)
LIKE_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), NAME)
LIKE_OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), NAME_AT)
LIKE_OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), NAME_AT)
