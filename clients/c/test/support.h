/** What tests share: daemons of this repository, small fake ones, and what goes between. */

#ifndef SUPPORT_H
#define SUPPORT_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "../include/backscroll.h"

enum { LONG_MS = 20000 };

/** End the program with a message unless a condition holds. */
#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, "it does not hold: %s", #condition))

/** Check that a call of a client has this outcome. */
#define CHECK_CODE(client, expected, call) check_code(__FILE__, __LINE__, client, expected, call)

__attribute__((noreturn, format(printf, 3, 4))) void fail(const char *file, int line, const char *format, ...);
void check_code(const char *file, int line, const bs_client *client, bs_code expected, bs_code code);

/** Check that a text has a part. */
#define CHECK_HAS(text, part) check_has(__FILE__, __LINE__, text, part)
void check_has(const char *file, int line, const char *text, const char *part);

/** A callback whose context is a `bs_code`, the outcome of its request. */
void keep_code(void *context, bs_reply *reply);

/** `printf` into a new string, which is freed at the end of the test. */
__attribute__((format(printf, 1, 2))) char *format(const char *format, ...);

/** A directory of the test's, which is removed at its end. */
const char *temporary_directory(void);

/** Stop what the test has started, and remove its directories. */
void clean_up(void);

/** The command that starts daemons, as words of a shell: the environment variable BACKSCROLL, or what is on the PATH. */
const char *backscroll(void);

/** Start a program with pipes to its standard input and output; it is killed at the end of the test. */
struct program {
    pid_t process;
    int input;
    FILE *output;
};
struct program *program_start(const char *shell_command);
/** Kill it and wait until it has ended. */
void program_kill(struct program *program);
/** Close its input, and read the next line of its output, which is freed at the end of the test. */
char *program_finish(struct program *program);
/** The next line of its output. */
char *program_line(struct program *program);

/** What a command prints, without the last line feed. */
char *printed(const char *shell_command);

/** A daemon that serves a directory; it is killed and started again as a test says. */
struct daemon {
    const char *data_dir;
    const char *flags;
    struct program *program;
};
struct daemon daemon_start(const char *flags);
void daemon_kill(struct daemon *daemon);
void daemon_restart(struct daemon *daemon);
/** Its first endpoint, and its token. */
char *daemon_endpoint(const struct daemon *daemon);
char *daemon_token(const struct daemon *daemon);

/** A client of a daemon, which is freed at the end of the test unless the test does. */
bs_client *client_of(const char *data_dir);
bs_client *client_with(bs_client_options options);
void client_free(bs_client *client);

/** Wait for a condition, while a client works; fails after a while. */
void wait_until(bs_client *client, bool (*condition)(void *), void *context);

/** A message as a payload; what it points to is the test's. */
bs_save_message_payload message_of(int number, const char *content);

/** Whether a process is there and is no zombie. */
bool is_running(pid_t process);

/* A program that speaks the protocol and answers what a test says, in a thread. Requests and answers are JSON here. */

struct fake;
/** The reply to a request, a new reference; NULL for none. */
typedef json_t *(*fake_answer)(void *context, json_t *request);
/** Listen on an endpoint; that of a tcp port is chosen if it ends with `:*`. */
struct fake *fake_start(const char *endpoint, fake_answer answer, void *context);
const char *fake_endpoint(const struct fake *fake);
/** Stop listening; all requests that it got, as a JSON array, which is freed at the end of the test. */
json_t *fake_stop(struct fake *fake);

json_t *ok_reply(json_t *request, json_t *result);
json_t *refusal(json_t *request, const char *code, const char *fault, bool retryable);

/** JSON and MessagePack, for tests: a new reference. NULL if it is none. */
json_t *json_of_msgpack(const void *data, size_t size);

/* Between a client and a daemon, by ipc: the test decides which replies are lost, and when the connection is. */

struct relay;
/** What the relay may do to bytes that the client sends over its connection of this number, from 0. */
typedef void (*relay_change)(char *data, size_t size, int connection);
struct relay *relay_start(const char *listen, const char *target, relay_change change);
void relay_lose_replies(struct relay *relay, bool loses);
void relay_cut(struct relay *relay);
void relay_stop(struct relay *relay);

#endif
