/** Opening a directory: a client of the daemon that serves it, started if there is none. */

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests.h"

static const char *const *the_command(void) {
    static const char *command[2];
    command[0] = backscroll();
    return command;
}

static pid_t pid_of(bs_client *client) {
    bs_health_report *health;
    CHECK_CODE(client, BS_OK, bs_health(client, NULL, &health));
    pid_t pid = (pid_t)health->pid;
    bs_free(health);
    return pid;
}

static bool has_ended(void *context) {
    return !is_running(*(pid_t *)context);
}

static void stop(pid_t pid) {
    kill(pid, SIGKILL);
    wait_until(NULL, has_ended, &pid);
}

static void *open_in_thread(void *context) {
    bs_client *client;
    CHECK_CODE(client, BS_OK, bs_open(context, &(bs_open_options){.command = the_command()}, &client));
    return client;
}

/** Rule: opened twice at once, a directory has one daemon, which outlives its clients and has none of this process's files. */
TEST(open_twice_at_once_starts_one_daemon) {
    char *data_dir = format("%s/new/data", temporary_directory());
    pthread_t threads[2];
    void *clients[2];
    int unmarked[2];
    char byte;
    CHECK(pipe(unmarked) == 0); // as an application that does not know of O_CLOEXEC
    for (int at = 0; at < 2; at++) CHECK(pthread_create(&threads[at], NULL, open_in_thread, data_dir) == 0);
    for (int at = 0; at < 2; at++) CHECK(pthread_join(threads[at], &clients[at]) == 0);
    pid_t pid = pid_of(clients[0]);
    CHECK(pid == pid_of(clients[1]));
    close(unmarked[1]);
    CHECK(fcntl(unmarked[0], F_SETFL, O_NONBLOCK) == 0 && read(unmarked[0], &byte, 1) == 0);
    bs_save_message_payload save = message_of(1, "x");
    CHECK_CODE(clients[0], BS_OK, bs_save_message(clients[0], &save, NULL));
    for (int at = 0; at < 2; at++) bs_client_free(clients[at]);
    bs_client *again = open_in_thread(data_dir);
    CHECK(pid_of(again) == pid);
    bs_client_free(again);
    CHECK_HAS(printed(format("cat %s/daemon.log", data_dir)), "\"event\":\"ready\"");
    stop(pid);
}

/** Rule: after a kill the next one that opens starts a daemon; one that is found is not started again. */
TEST(open_after_a_kill_starts_a_daemon) {
    struct daemon daemon = daemon_start("");
    bs_client *found = open_in_thread((char *)(uintptr_t)daemon.data_dir);
    CHECK(pid_of(found) == daemon.program->process);
    bs_client_free(found);
    daemon_kill(&daemon);
    bs_client *client = open_in_thread((char *)(uintptr_t)daemon.data_dir);
    pid_t pid = pid_of(client);
    bs_client_free(client);
    stop(pid);
}

/** Rule: with `exit_with_parent` the daemon ends with the process; its log is where it is asked for. */
TEST(open_with_exit_with_parent_ends_with_the_process) {
    const char *data_dir = temporary_directory(), *log = format("%s/own.log", data_dir);
    int ends[2];
    pid_t pid = 0;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        bs_client *client;
        bs_open_options options = {.command = the_command(), .exit_with_parent = true, .log_file = log};
        if (bs_open(data_dir, &options, &client) != BS_OK) _exit(1);
        pid = pid_of(client);
        bs_client_free(client); // without a client it goes on
        if (!is_running(pid) || write(ends[1], &pid, sizeof pid) != sizeof pid) _exit(1);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 0);
    CHECK(read(ends[0], &pid, sizeof pid) == sizeof pid);
    wait_until(NULL, has_ended, &pid);
    CHECK_HAS(printed(format("cat %s", log)), "ready");
}

static void check_refused(const char *data_dir, bs_open_options options, bs_code expected, const char *message) {
    bs_client *client;
    if (options.command == NULL) options.command = the_command();
    CHECK_CODE(client, expected, bs_open(data_dir, &options, &client));
    CHECK_HAS(bs_last_error(client)->message, message);
    CHECK_CODE(client, BS_UNAVAILABLE, bs_ping(client, NULL, NULL));
    bs_client_free(client);
}

/** Rule: what keeps a daemon from starting is said, with what to do. */
TEST(open_says_what_keeps_a_daemon_from_starting) {
    const char *data_dir = format("%s/data", temporary_directory());
    const char *none[] = {"no-such-program", NULL}, *flags[] = {"--no-such-flag", NULL}, *nothing[] = {"true", NULL};
    const char *held[] = {"sh", "-c", "exit 3", NULL}, *silent[] = {"sh", "-c", "exec sleep 60", NULL};
    check_refused(data_dir, (bs_open_options){.start_timeout_ms = -1}, BS_INVALID, "start_timeout_ms");
    check_refused(data_dir, (bs_open_options){.client = {.endpoint = "ipc:///x"}}, BS_INVALID, "takes a directory");
    check_refused(NULL, (bs_open_options){0}, BS_INVALID, "name a directory");
    CHECK(access(data_dir, F_OK) != 0);
    check_refused(
        data_dir, (bs_open_options){.command = none}, BS_UNAVAILABLE,
        "No such file or directory; check the option `command`");
    check_refused(data_dir, (bs_open_options){.flags = flags}, BS_UNAVAILABLE, "no-such-flag");
    // Nothing of what the daemon before it wrote into the same log.
    check_refused(
        data_dir, (bs_open_options){.command = nothing}, BS_UNAVAILABLE,
        "exit code 0 before it was ready: it wrote nothing");
    check_refused(
        data_dir, (bs_open_options){.log_file = format("%s/none/log", data_dir)}, BS_UNAVAILABLE, "name another file");
    check_refused(
        data_dir, (bs_open_options){.command = held, .start_timeout_ms = 200}, BS_UNAVAILABLE, "no daemon served");
    check_refused(
        data_dir, (bs_open_options){.command = silent, .start_timeout_ms = 200}, BS_UNAVAILABLE, "not ready in time");
    // Whoever waits for every child takes the exit code: then it may be held.
    signal(SIGCHLD, SIG_IGN);
    check_refused(
        data_dir, (bs_open_options){.command = held, .start_timeout_ms = 200}, BS_UNAVAILABLE, "no daemon served");
    signal(SIGCHLD, SIG_DFL);
    const char *file = format("%s/file", data_dir);
    CHECK(mkdir(data_dir, 0700) == 0 || access(data_dir, F_OK) == 0);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    check_refused(file, (bs_open_options){0}, BS_UNAVAILABLE, "no daemon can be started in");
    check_refused(
        format("%s/x", file), (bs_open_options){0}, BS_UNAVAILABLE, "name a directory that this user can write");
}

static json_t *answer_as_impostor(void *context, json_t *request) {
    (void)context;
    return ok_reply(request, json_pack("{s:s, s:[]}", "proof", format("%064d", 0), "endpoints"));
}

/** Rule: whoever has a killed daemon's port is not taken for it. */
TEST(open_takes_no_other_program_for_the_daemon) {
    const char *data_dir = temporary_directory(), *flags[] = {"--endpoint", "tcp://127.0.0.1:*", NULL};
    struct fake *fake = fake_start("tcp://127.0.0.1:*", answer_as_impostor, NULL);
    FILE *file = fopen(format("%s/endpoint.json", data_dir), "w");
    fprintf(file, "{\"endpoints\": [\"%s\"], \"token\": \"a secret\"}", fake_endpoint(fake));
    fclose(file);
    bs_client *client;
    CHECK_CODE(client, BS_OK, bs_open(data_dir, &(bs_open_options){.command = the_command(), .flags = flags}, &client));
    pid_t pid = pid_of(client);
    bs_client_free(client);
    stop(pid);
    json_t *each;
    size_t index;
    json_array_foreach(fake_stop(fake), index, each) {
        CHECK(strcmp(json_string_value(json_object_get(each, "type")), "hello") == 0);
    }
}

/** A level, and the lowest one that its daemon serves. */
struct levels {
    int level;
    int lowest;
};

static json_t *answer_with_levels(void *context, json_t *request) {
    const struct levels *levels = context;
    bool is_health = strcmp(json_string_value(json_object_get(request, "type")), "health") == 0;
    if (is_health) return ok_reply(request, json_pack("{s:i, s:s}", "level", levels->level, "version", "0.0.9"));
    return ok_reply(request, json_pack("{s:i}", "lowestCompatibleLevel", levels->lowest));
}

static void open_level(struct levels levels, const char *message) {
    const char *data_dir = temporary_directory();
    struct fake *fake = fake_start(format("ipc://%s/f", data_dir), answer_with_levels, &levels);
    FILE *file = fopen(format("%s/endpoint.json", data_dir), "w");
    fprintf(file, "{\"endpoints\": [\"%s\"]}", fake_endpoint(fake));
    fclose(file);
    bs_client *client;
    bs_code code = bs_open(data_dir, NULL, &client);
    CHECK(code == (message == NULL ? BS_OK : BS_UNAVAILABLE));
    if (message != NULL) CHECK_HAS(bs_last_error(client)->message, message);
    bs_client_free(client);
    (void)fake_stop(fake);
}

/** Rule: a daemon of another level is told in words, unless it serves this one. */
TEST(open_says_that_a_level_does_not_fit) {
    open_level(
        (struct levels){0, 0},
        "speaks level 0 of the protocol, and this client was made for level 1: the daemon is too old");
    open_level((struct levels){9, 8}, "this client is too old; update this library");
    open_level((struct levels){9, 1}, NULL);
}
