/** What the players of the sets share: a daemon that is started when it is first needed, clients of it, and comparing. */

#ifndef RUNNER_H
#define RUNNER_H

#include "../../src/memory.h"
#include "../support.h"

enum { TIMEOUT_MS = 10000 };

/** What is not as expected about a vector, in new memory; NULL if all is. The file is the whole set. */
typedef char *(*player)(json_t *vector, json_t *file);

char *play_request(json_t *vector, json_t *file);
char *play_reply(json_t *vector, json_t *file);
char *play_canonical(json_t *vector, json_t *file);
char *play_hello(json_t *vector, json_t *file);
char *play_refusal(json_t *vector, json_t *file);
char *play_zmtp(json_t *vector, json_t *file);
char *play_row(json_t *vector, json_t *file);
char *play_sequence(json_t *vector, json_t *file);
char *play_scenario(json_t *vector, json_t *file);

/** A text in new memory. */
__attribute__((format(printf, 1, 2))) char *told(const char *format, ...);

/** What differs, in words; NULL if nothing does. */
char *difference(const char *what, const json_t *expected, const json_t *actual);

/** Names the first key that is not among these, which are separated by spaces; NULL if there is none. */
char *unknown_key(json_t *object, const char *known);

/** The text under a name; empty if there is none. */
const char *text_of(json_t *object, const char *name);

/** The directory of the daemon, which is started if it was not. */
struct daemon *the_daemon(void);

/** A client of a scope, which lives as long as the program. */
bs_client *client_in(const char *scope);

/** The outcome of a request. */
struct outcome {
    bool is_done;
    bs_code code;
    char *error_name;
    json_t *error_details; /**< NULL if there are none. */
    json_t *result;
    int64_t seq;
};
void outcome_free(struct outcome *outcome);

/**
 * Send a request with a payload in MessagePack. If it can be the typed payload of its operation, and `is_typed` says so, it
 * is that; otherwise the bytes are sent as they are.
 */
void send_request(
    bs_client *client,
    const char *type,
    const struct buffer *payload,
    const char *id,
    bool is_typed,
    struct outcome *outcome);

/** The same with a payload in JSON, which may be refused before it is sent. */
void send_json(
    bs_client *client, const char *type, const char *payload, const char *id, bool is_typed, struct outcome *outcome);

/** Wait for an outcome. */
void await_outcome(bs_client *client, const struct outcome *outcome);

/** Append the bytes of a text in hex. */
void append_hex(struct buffer *buffer, const char *hex);

#endif
