/** Starting: a client of the daemon that serves a directory, which is started if there is none. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"

extern char **environ;

enum { START_TIMEOUT_MS = 30000 };
#define PAUSE (50 * MS)
#define PAUSE_MAX (1000 * MS)
/** The exit code of a daemon whose directory another one holds. */
enum { HELD = 3 };
/** Instead of an exit code. */
enum { KILLED = -1, UNKNOWN = -2 };
enum { LOG_BYTES_MAX = 8 * 1024 * 1024, QUOTED_CHARS_MAX = 2000 };
enum { NEW_LOG_MODE = 0600, NEW_DIRECTORY_MODE = 0777 };
/** Where `make install` expects the sidecar. */
#ifndef BSI_SIDECAR
#define BSI_SIDECAR "/usr/local/lib/backscroll/backscroll"
#endif

#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 34)
#define CLOSES_FILES
#endif
#endif

static const char *const ON_PATH[] = {"backscroll", NULL};
static const char *const SIDECAR[] = {BSI_SIDECAR, NULL};

/** How to start a daemon. */
struct start {
    char *data_dir;
    const char *const *command;
    const char *const *flags;
    const char *advice;
    bool exits_with_parent;
    char *log;
    int64_t timeout_ms;
    int64_t deadline;
};

/** A daemon that starts. */
struct starting {
    pid_t process;
    int ready;      /**< Where it prints a line when it is ready. */
    int parent;     /**< The other end of its standard input, if it ends with this process; otherwise −1. */
    off_t log_from; /**< How many bytes its log has of others before it. */
};

/** `BS_UNAVAILABLE` with what went wrong, the system's reason, and what to do. */
static bs_error *system_error(const char *problem, const char *name, const char *advice) {
    return bsi_error(BS_UNAVAILABLE, NULL, "%s %s: %s; %s", problem, name, strerror(errno), advice);
}

/** Make a directory and those before it; false with `errno`. */
static bool make_directories(const char *path) {
    char *partial = bsi_joined(path, "/", "");
    if (partial == NULL) return false;
    bool is_made = true;
    for (char *slash = strchr(partial + 1, '/'); slash != NULL && is_made; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        is_made = mkdir(partial, NEW_DIRECTORY_MODE) == 0 || errno == EEXIST;
        *slash = '/';
    }
    int problem = errno;
    struct stat found;
    if (is_made && stat(path, &found) == 0 && !S_ISDIR(found.st_mode)) {
        is_made = false;
        problem = ENOTDIR;
    }
    free(partial);
    errno = problem;
    return is_made;
}

/** Open the daemon's log, in a data directory that may not be there yet. */
static bs_error *open_log(const struct start *start, int *file) {
    static const char PROBLEM[] = "no daemon can be started in";
    struct stat found;
    if (!make_directories(start->data_dir)) {
        return system_error(PROBLEM, start->data_dir, "name a directory that this user can write");
    }
    if (stat(start->log, &found) == 0 && found.st_size > LOG_BYTES_MAX) (void)truncate(start->log, 0);
    *file = open(start->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, NEW_LOG_MODE);
    if (*file >= 0) return NULL;
    return bsi_error(
        BS_UNAVAILABLE, NULL,
        "no daemon can be started in %s, because its log cannot be written: %s: %s; name another file in `log_file`",
        start->data_dir, start->log, strerror(errno));
}

static size_t count_of(const char *const *strings) {
    size_t count = 0;
    while (strings != NULL && strings[count] != NULL) count++;
    return count;
}

/** The words of the command line, in new memory; NULL if there is none. */
static char **words_of(const struct start *start) {
    const char *const own[] = {
        "serve", "--data-dir", start->data_dir, start->exits_with_parent ? "--exit-with-parent" : NULL, NULL};
    const char *const *const parts[] = {start->command, own, start->flags};
    size_t count = count_of(start->command) + count_of(own) + count_of(start->flags), at = 0;
    const char **words = calloc(count + 1, sizeof *words);
    for (size_t part = 0; words != NULL && part < COUNT_OF(parts); part++) {
        for (size_t word = 0; word < count_of(parts[part]); word++) words[at++] = parts[part][word];
    }
    return (char **)(uintptr_t)words;
}

/** Start the program with these as its standard input, output and error; returns an error number. */
static int spawn(const struct start *start, const int streams[3], pid_t *process) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    char **words = words_of(start);
    if (words == NULL) return ENOMEM;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    for (int stream = 0; stream < 3; stream++) posix_spawn_file_actions_adddup2(&actions, streams[stream], stream);
#ifdef CLOSES_FILES
    posix_spawn_file_actions_addclosefrom_np(&actions, 3); // the application's, if it did not mark them
#endif
    // Signals of the terminal are for this program's group. What this thread blocks is no matter of the daemon's.
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    short flags = POSIX_SPAWN_SETSIGMASK;
    if (!start->exits_with_parent) flags |= POSIX_SPAWN_SETSID;
    posix_spawnattr_setflags(&attributes, flags);
    int problem = posix_spawnp(process, words[0], &actions, &attributes, words, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(words);
    return problem;
}

static void close_all(const int *files, size_t count) {
    for (size_t at = 0; at < count; at++) {
        if (files[at] >= 0) close(files[at]);
    }
}

static bs_error *start_daemon(const struct start *start, struct starting *starting) {
    int log = -1, output[2] = {-1, -1}, input[2] = {-1, -1};
    struct stat found = {0};
    bs_error *error = open_log(start, &log);
    if (error != NULL) return error;
    (void)fstat(log, &found);
    starting->log_from = found.st_size;
    bool has_pipes = pipe2(output, O_CLOEXEC) == 0;
    if (start->exits_with_parent)
        has_pipes = has_pipes && pipe2(input, O_CLOEXEC) == 0;
    else
        input[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int problem = has_pipes && input[0] >= 0 ? 0 : errno;
    const int streams[] = {input[0], output[1], log};
    if (problem == 0) problem = spawn(start, streams, &starting->process);
    const int done[] = {input[0], output[1], log};
    close_all(done, COUNT_OF(done));
    if (problem == 0) {
        starting->ready = output[0];
        starting->parent = input[1];
        return NULL;
    }
    const int unused[] = {input[1], output[0]};
    close_all(unused, COUNT_OF(unused));
    return bsi_error(
        BS_UNAVAILABLE, NULL, "the daemon cannot be started: %s: %s; %s", *start->command, strerror(problem),
        start->advice);
}

/** Wait until a process has ended; its exit code, if it was not killed and the application has not taken it. */
static int exit_code_of(pid_t process) {
    int status = 0;
    pid_t ended;
    do ended = waitpid(process, &status, 0);
    while (ended < 0 && errno == EINTR);
    if (ended < 0) return UNKNOWN; // SIGCHLD is ignored, or its handler waits for every child
    return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
}

/** What a daemon wrote into its log. */
static bs_error *ended(const struct start *start, const struct starting *starting, int code) {
    char said[QUOTED_CHARS_MAX + 1] = "";
    int log = open(start->log, O_RDONLY | O_CLOEXEC);
    struct stat found = {0};
    if (log >= 0 && fstat(log, &found) == 0) {
        off_t from = found.st_size - QUOTED_CHARS_MAX;
        if (from < starting->log_from) from = starting->log_from;
        ssize_t size = pread(log, said, QUOTED_CHARS_MAX, from);
        while (size > 0 && strchr(" \n", said[size - 1]) != NULL) size--;
        said[size > 0 ? size : 0] = '\0';
    }
    if (log >= 0) close(log);
    return bsi_error(
        BS_UNAVAILABLE, NULL, "the daemon (%s) ended with exit code %d before it was ready: %s", *start->command, code,
        *said != '\0' ? said : "it wrote nothing to its log");
}

static int ms_left(int64_t deadline) {
    int64_t left = (deadline - bsi_now()) / MS;
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

/** Wait until a daemon is ready, or has ended because another one holds the directory, as `is_held` says or has to assume. */
static bs_error *await_ready(bs_client *client, const struct start *start, struct starting *starting, bool *is_held) {
    struct pollfd ready = {.fd = starting->ready, .events = POLLIN};
    char line;
    int found;
    do found = poll(&ready, 1, ms_left(start->deadline));
    while (found < 0 && errno == EINTR);
    ssize_t size = found > 0 ? read(starting->ready, &line, 1) : 0;
    close(starting->ready);
    *is_held = false;
    if (size > 0) {
        client->daemon = starting->process;
        return NULL; // and `parent` stays open until this process ends
    }
    close_all(&starting->parent, 1);
    if (found <= 0) {
        kill(starting->process, SIGKILL);
        (void)exit_code_of(starting->process);
        return bsi_unavailable("the daemon was not ready in time, and was stopped; its log is %s", start->log);
    }
    int code = exit_code_of(starting->process);
    *is_held = code == HELD || code == UNKNOWN;
    return *is_held ? NULL : ended(start, starting, code);
}

/**
 * Why no daemon serves a directory; NULL if one does. Its address may be that of a daemon that was killed, and another
 * program, or another directory's daemon, may have its port: so over tcp it has to prove who it is.
 */
static bs_error *problem_at(bs_client *client) {
    struct transport transport;
    zmq_msg_t body;
    bs_error *problem = NULL;
    bsi_transport_init(&transport, client->zmq, &client->location, -1);
    bsi_transport_set_active(&transport, true, bsi_now());
    zmq_msg_init(&body);
    while (bsi_transport_next(&transport, bsi_now(), &body, &problem) == TRANSPORT_IDLE) {
        int64_t timer = bsi_transport_timer(&transport);
        (void)bsi_wire_wait(&transport.wire, timer == NEVER ? -1 : ms_left(timer) + 1);
    }
    zmq_msg_close(&body);
    bsi_transport_close(&transport);
    return problem;
}

static void pause_for(int64_t duration) {
    (void)poll(NULL, 0, (int)(duration / MS));
}

static bs_error *start_unless_served(bs_client *client, const struct start *start) {
    int64_t pause = PAUSE;
    for (;;) {
        bs_error *problem = problem_at(client);
        if (problem == NULL || problem->fault == BS_FAULT_CALLER) return problem;
        if (bsi_now() > start->deadline) {
            bs_error *late = bsi_unavailable(
                "no daemon served %s within %lld ms: %s; the log of one that was started is %s", start->data_dir,
                (long long)start->timeout_ms, problem->message, start->log);
            bsi_error_free(problem);
            return late;
        }
        bsi_error_free(problem);
        struct starting starting = {.ready = -1, .parent = -1};
        bool is_held = false;
        bs_error *error = start_daemon(start, &starting);
        if (error == NULL) error = await_ready(client, start, &starting, &is_held);
        if (error != NULL) return error;
        if (!is_held) continue;
        pause_for(pause); // another one is starting or stopping there
        pause = 2 * pause < PAUSE_MAX ? 2 * pause : PAUSE_MAX;
    }
}

/* The daemon's level; what else it says about itself may be of any. */

struct level {
    int64_t level;
    bs_text version;
    bool has_lowest;
    int64_t lowest;
};

static const struct field LEVEL_FIELDS[] = {
    {"level", KIND_INTEGER, ALWAYS, false, false, offsetof(struct level, level), 0, NULL, NULL},
    {"version", KIND_TEXT, BY_POINTER, false, false, offsetof(struct level, version), 0, NULL, NULL},
    {"lowestCompatibleLevel", KIND_INTEGER, BY_FLAG, false, false, offsetof(struct level, lowest),
     offsetof(struct level, has_lowest), NULL, NULL},
};
static const struct record LEVEL_RECORD = {
    .name = "level",
    .size = sizeof(struct level),
    .fields = LEVEL_FIELDS,
    .count = COUNT_OF(LEVEL_FIELDS),
};
static const struct operation HEALTH = {
    .name = "health", .kind = "built-in", .result = {KIND_RECORD, false, &LEVEL_RECORD}};
static const struct operation DESCRIBE = {
    .name = "describe", .kind = "built-in", .result = {KIND_RECORD, false, &LEVEL_RECORD}};

/** Whether the daemon serves clients of this level. */
static bs_code ask_whether_served(bs_client *client, const struct level *health, bool *is_served) {
    struct level *described = NULL;
    *is_served = health->level == BS_LEVEL;
    if (health->level <= BS_LEVEL) return BS_OK;
    bs_code code = bsi_call(client, &DESCRIBE, NULL, NULL, &described);
    *is_served = code == BS_OK && (!described->has_lowest || described->lowest <= BS_LEVEL);
    bs_free(described);
    return code;
}

/** Say in words that a daemon's level of the protocol does not fit. */
static bs_code check_level(bs_client *client, const char *data_dir) {
    struct level *health = NULL;
    bool is_served;
    bs_code code = bsi_call(client, &HEALTH, NULL, NULL, &health);
    if (code == BS_OK) code = ask_whether_served(client, health, &is_served);
    if (code == BS_OK && !is_served) {
        bool is_client_old = health->level > BS_LEVEL;
        bs_error *error = bsi_error(
            BS_UNAVAILABLE, NULL,
            "the daemon that serves %s (backscroll %s) speaks level %lld of the protocol, and this client was made for "
            "level %d: %s is too old; update %s",
            data_dir, health->version.data != NULL ? health->version.data : "of an unknown version",
            (long long)health->level, BS_LEVEL, is_client_old ? "this client" : "the daemon",
            is_client_old ? "this library" : "backscroll, and stop that daemon");
        code = bsi_fail(client, error);
    }
    bs_free(health);
    return code;
}

/** The absolute path, so that the daemon and the client mean the same; NULL if there is no memory. */
static char *absolute(const char *path) {
    if (*path == '/') return bsi_joined(path, "", "");
    char *here = realpath(".", NULL);
    char *whole = here == NULL ? NULL : bsi_joined(here, "/", path);
    free(here);
    return whole;
}

static void set_command(struct start *start, const char *const *command) {
    start->command = command;
    start->advice = "check the option `command`";
    if (command != NULL && *command != NULL) return;
    start->command = access(BSI_SIDECAR, X_OK) == 0 ? SIDECAR : ON_PATH;
    start->advice = "unpack the sidecar of backscroll as the folder of " BSI_SIDECAR ", or install the Python package "
                    "`backscroll`, or name a program in the option `command`";
}

static bs_code open_with(bs_client *client, const bs_open_options *options, struct start *start) {
    if (options->start_timeout_ms < 0) {
        return bsi_fail(
            client,
            bsi_error(
                BS_INVALID, NULL, "start_timeout_ms is a number of milliseconds, not %d", options->start_timeout_ms));
    }
    start->data_dir = client->location.data_dir;
    start->log = options->log_file != NULL ? bsi_joined(options->log_file, "", "")
                                           : bsi_joined(start->data_dir, "/", "daemon.log");
    if (start->log == NULL) return bsi_fail(client, bsi_no_memory);
    start->flags = options->flags;
    start->exits_with_parent = options->exit_with_parent;
    start->timeout_ms = options->start_timeout_ms > 0 ? options->start_timeout_ms : START_TIMEOUT_MS;
    start->deadline = bsi_now() + start->timeout_ms * MS;
    set_command(start, options->command);
    bs_error *error = start_unless_served(client, start);
    return error != NULL ? bsi_fail(client, error) : check_level(client, start->data_dir);
}

bs_code bs_open(const char *data_dir, const bs_open_options *options, bs_client **client) {
    static const bs_open_options DEFAULTS;
    const bs_open_options *own = options != NULL ? options : &DEFAULTS;
    bs_client_options of_client = own->client;
    char *path = data_dir == NULL ? NULL : absolute(data_dir);
    of_client.data_dir = path;
    of_client.endpoint = NULL;
    bs_code code = bs_client_new(&of_client, client);
    struct start start = {0};
    if (code == BS_OK && data_dir == NULL) code = bsi_fail(*client, bsi_error(BS_INVALID, NULL, "name a directory"));
    if (code == BS_OK && path == NULL) code = bsi_fail(*client, bsi_no_memory);
    if (code == BS_OK && (own->client.data_dir != NULL || own->client.endpoint != NULL)) {
        code = bsi_fail(
            *client, bsi_error(BS_INVALID, NULL, "`bs_open` takes a directory: leave out data_dir and endpoint"));
    }
    if (code == BS_OK) code = open_with(*client, own, &start);
    if (code != BS_OK && *client != NULL) bs_close(*client);
    free(start.log);
    free(path);
    return code;
}
