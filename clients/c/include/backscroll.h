/**
 * @file
 * The client of backscroll, a storage daemon for chat applications.
 *
 * **Operations.** Each operation of the language is a function: `bs_save_message` sends the command and waits for its
 * outcome, `bs_save_message_send` only sends it, and calls a function when there is an outcome. What a request
 * contains is a struct, which is zero where nothing is set. Fields have their names of the protocol in snake case.
 *
 * **Threads.** A client is used by one thread at a time, and starts none; libzmq has one thread for input and output.
 * All callbacks are called by the thread that is in `bs_poll` or waits for an outcome. There is no global state, and no
 * signal handler; a signal does not interrupt a call. After a fork only the parent can use a client.
 *
 * **Memory.** Each result is one piece of memory, and `bs_free` frees it with everything inside. What a client or an
 * iterator hands out as `const` stays its own.
 *
 * **Errors.** Functions return a `bs_code`, which is `BS_OK` or says what went wrong; `bs_last_error` says more.
 */

#ifndef BACKSCROLL_H
#define BACKSCROLL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__GNUC__)
/** Marks what the shared library exports. */
#define BS_API __attribute__((visibility("default")))
#else
#define BS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** The version of this library. */
#define BS_VERSION "0.1.0"

/**
 * Text in UTF-8. It is unset if `data` is NULL; the empty text has `data`. In results a NUL follows, so that `data` is a
 * string where the text itself contains none.
 */
typedef struct bs_text {
    const char *data;
    size_t size;
} bs_text;

/** A value of free JSON, as JSON text; unset if `data` is NULL. Integers have 64 bits, and 1.0 is not 1. */
typedef struct bs_json {
    const char *data;
    size_t size;
} bs_json;

/** Bytes; unset if `data` is NULL. */
typedef struct bs_bytes {
    const uint8_t *data;
    size_t size;
} bs_bytes;

/** Several texts. */
typedef struct bs_text_array {
    const bs_text *items;
    size_t count;
} bs_text_array;

/** Several values of free JSON. */
typedef struct bs_json_array {
    const bs_json *items;
    size_t count;
} bs_json_array;

/** A number under a name. */
typedef struct bs_named_integer {
    bs_text name;
    int64_t value;
} bs_named_integer;

/** Numbers under names. */
typedef struct bs_named_integer_array {
    const bs_named_integer *items;
    size_t count;
} bs_named_integer_array;

/** What an update does to a field. */
typedef enum bs_update {
    BS_KEEP,  /**< The field stays as it is. */
    BS_SET,   /**< The field gets the value. */
    BS_CLEAR, /**< The field is unset; only where the language allows it. */
} bs_update;

/** An update of a text: `{BS_SET, BS_TEXT("new")}` or `{.state = BS_CLEAR}`. */
typedef struct bs_text_update {
    bs_update state;
    bs_text value;
} bs_text_update;

/** An update of an integer. */
typedef struct bs_integer_update {
    bs_update state;
    int64_t value;
} bs_integer_update;

/** An update of a boolean. */
typedef struct bs_boolean_update {
    bs_update state;
    bool value;
} bs_boolean_update;

/** An update of free JSON. */
typedef struct bs_json_update {
    bs_update state;
    bs_json value;
} bs_json_update;

/** An update of a list of texts, as a whole. */
typedef struct bs_text_array_update {
    bs_update state;
    bs_text_array value;
} bs_text_array_update;

/** An update of a list of free JSON, as a whole. */
typedef struct bs_json_array_update {
    bs_update state;
    bs_json_array value;
} bs_json_array_update;

/** The text of a string literal, in an initializer too. */
#define BS_TEXT(literal)                                                                                               \
    { "" literal, sizeof(literal) - 1 }
/** The JSON of a string literal, in an initializer too. */
#define BS_JSON(literal)                                                                                               \
    { "" literal, sizeof(literal) - 1 }
/** The items of an array, and how many there are: `.mentions = BS_ITEMS(mentions)`. */
#define BS_ITEMS(array)                                                                                                \
    { array, sizeof(array) / sizeof((array)[0]) }

/** The text of a string; unset if that is NULL. It is not copied. */
BS_API bs_text bs_text_of(const char *string);

/** JSON of a string; unset if that is NULL. It is not copied. */
BS_API bs_json bs_json_of(const char *string);

/** Whether a text is the same as a string; an unset one is the same as NULL. */
BS_API bool bs_text_is(bs_text text, const char *string);

/** Free a result; NULL is allowed. */
BS_API void bs_free(const void *result);

#include "backscroll/errors.h"
#include "backscroll/limits.h"

/** On whose side the reason of an error lies. */
typedef enum bs_fault {
    BS_FAULT_CALLER, /**< The request cannot succeed as it is. */
    BS_FAULT_DAEMON, /**< The daemon could not execute the request, or did not answer. */
} bs_fault;

/** A command of a batch that failed. */
typedef struct bs_failure {
    int64_t index;   /**< Its place in the batch. */
    bs_text code;    /**< The code of the protocol. */
    bs_text message; /**< Unset where the list became too long for messages. */
    bs_text path;    /**< The field that it is about; may be unset. */
} bs_failure;

/** What went wrong. */
typedef struct bs_error {
    bs_code code;        /**< `BS_OTHER` for a code of a later level of the protocol. */
    const char *name;    /**< The code as the protocol has it, such as `not-found`. */
    const char *message; /**< What happened, and what to do. */
    bs_fault fault;      /**< On whose side the reason lies. */
    bool retryable;      /**< Whether the same request may succeed later. */
    const char *path;    /**< The field that it is about, such as `$.payload.message.timestamp`; may be NULL. */
    const char *cursor;  /**< With `BS_FEED_GAP`: where to go on after everything was read anew; else NULL. */
    bs_json details;     /**< All that the daemon says about it; may be unset. */
    struct {
        const bs_failure *items;
        size_t count;
    } failures; /**< The commands of a batch that failed, in their order. */
} bs_error;

/** The name of a code, such as `not-found`. */
BS_API const char *bs_code_name(bs_code code);

/** A client of a daemon. */
typedef struct bs_client bs_client;

/** How important a line of the log is. */
typedef enum bs_log_level {
    BS_LOG_DEBUG,   /**< What goes as it should, and refusals that are the caller's fault. */
    BS_LOG_WARNING, /**< The daemon does not answer, or could not execute a request. */
} bs_log_level;

/** How to find the daemon, and what holds for all requests. Zero is the default of everything. Strings are copied. */
typedef struct bs_client_options {
    /** The daemon's data directory; where neither is given, `BACKSCROLL_DATA_DIR` or the user's folder for data. */
    const char *data_dir;
    /** The daemon's address, such as `ipc:///run/chat/backscroll.sock`, `tcp://127.0.0.1:5555` or `curve://…`. */
    const char *endpoint;
    /** The token for tcp and CURVE; otherwise `BACKSCROLL_TOKEN`, or the one in the data directory. */
    const char *token;
    /** For CURVE, a file that `backscroll keys create` made; otherwise the one that `BACKSCROLL_KEYS` names. */
    const char *keys_file;
    /** The account whose data it is; `default` if NULL. */
    const char *scope;
    /** How long a request waits for its outcome, in milliseconds: 5,000 if 0. The daemon does not start it later. */
    int timeout_ms;
    /**
     * Gets a line for each request that has its outcome, and for each connection, without what people wrote: `request`
     * is the request's id, or NULL.
     */
    void (*log)(void *context, bs_log_level level, const char *line, const char *request);
    /** Called when a connection was made, with NULL, and when it was lost or could not be made, with the reason. */
    void (*on_connection)(void *context, const bs_error *problem);
    /** Returns the W3C trace context of a request that has none of its own, or NULL; it is copied at once. */
    const char *(*traceparent)(void *context);
    /** What these functions get. */
    void *context;
} bs_client_options;

/** What holds for one request. Zero is the default of everything. */
typedef struct bs_request {
    /** How long it waits for its outcome, in milliseconds: as long as the client says if 0. */
    int timeout_ms;
    /**
     * The id of a command, 1 to 64 bytes, preferably of `bs_new_id`. To be sure of a command even across a restart of the
     * application, store the id before, and execute the same command with it until a reply comes: it takes effect once.
     */
    const char *request_id;
    /** W3C trace context, for the daemon's log. */
    const char *traceparent;
} bs_request;

/** The outcome of a request that was sent with a callback. */
typedef struct bs_reply {
    bs_code code;           /**< `BS_OK`, or what went wrong. */
    const bs_error *error;  /**< More about that; NULL if nothing went wrong. */
    const void *result;     /**< What the function that waits would return; NULL if there is none. */
    int64_t seq;            /**< The number of the scope's commit that the result reflects. */
    const char *request_id; /**< The request's id. */
} bs_reply;

/**
 * Called once with the outcome of a request, inside `bs_poll` or any function that waits, never inside the one that sends
 * it. It may send requests, wait for others, and close the client, but not free it. While it waits, other callbacks are
 * called inside it: where many may wait, send the next request with a callback instead. The reply is the client's and ends
 * with the call; `bs_take_result` keeps its result.
 */
typedef void (*bs_callback)(void *context, bs_reply *reply);

/** A request that was sent and has no outcome yet; 0 is none. */
typedef uint64_t bs_ticket;

/**
 * Make a client. It connects with the first request, and again whenever the connection was lost; whether a daemon
 * answers, the first request shows.
 *
 * Requests take effect in the order of the calls. Those without a reply are sent again on a new connection, in that order
 * and before any other; the daemon recognises commands by their ids, so each takes effect once. At most 1,000 are in
 * flight; more wait here, up to 100,000 with bodies of 256 MiB, and beyond that are refused with `BS_BUSY`.
 *
 * @param options may be NULL.
 * @param client is set also where the options cannot be used, so that `bs_last_error` can say why; NULL only if there is
 *     no memory. Free it with `bs_client_free`.
 * @return `BS_OK`, `BS_INVALID`, `BS_UNAVAILABLE` if too many files are open, or `BS_NO_MEMORY`.
 */
BS_API bs_code bs_client_new(const bs_client_options *options, bs_client **client);

/** How to open a directory. Zero is the default of everything. */
typedef struct bs_open_options {
    /** What holds for the client; its `data_dir` and `endpoint` must be NULL. */
    bs_client_options client;
    /**
     * The program that starts a daemon, and its first arguments, ended by NULL. If NULL, the sidecar in the folder
     * `backscroll` beside this library, or else `backscroll` on the `PATH`.
     */
    const char *const *command;
    /** Further flags of `backscroll serve`, ended by NULL. */
    const char *const *flags;
    /** Let a daemon that is started here end with this process; otherwise it goes on, and others may use it. */
    bool exit_with_parent;
    /** The file for the log of a daemon that is started here: `daemon.log` in the directory if NULL. */
    const char *log_file;
    /** How long to wait until a daemon serves, in milliseconds: 30,000 if 0. */
    int start_timeout_ms;
} bs_open_options;

/**
 * A client of the daemon that serves a data directory; starts one if none does. When two programs open a directory at
 * once, both get clients of the same daemon.
 *
 * The daemon that it starts goes on when this process ends, except with `exit_with_parent`. To stop it, send SIGTERM to
 * the `pid` that `bs_health` tells. It is a child of this process: where it ends after the client was freed, it is a zombie
 * until this process waits for it or ends.
 *
 * @param data_dir is made if it is missing; `~` has no meaning in it.
 * @param options may be NULL.
 * @param client as with `bs_client_new`.
 * @return `BS_OK`; `BS_UNAVAILABLE` if no daemon starts, as in a directory that cannot be written, or if it speaks a level
 *     of the protocol that does not fit; `BS_INVALID` or `BS_UNAUTHENTICATED` if the options cannot be used.
 */
BS_API bs_code bs_open(const char *data_dir, const bs_open_options *options, bs_client **client);

/**
 * Close the connection. Requests without an outcome get `BS_NO_REPLY`, or `BS_UNAVAILABLE` if they were not sent; their
 * callbacks are called before this returns. Later requests are refused.
 */
BS_API void bs_close(bs_client *client);

/** Close a client and free it, after its changes and watches; NULL is allowed. Not from a callback. */
BS_API void bs_client_free(bs_client *client);

/**
 * What went wrong in the latest function that failed, until the next one fails; NULL if none did. Of a client that is NULL it
 * says that there is no memory.
 */
BS_API const bs_error *bs_last_error(const bs_client *client);

/** The number of the scope's commit that the latest result of a function that waits reflects. */
BS_API int64_t bs_last_seq(const bs_client *client);

/**
 * Do what there is to do: connect, send, receive, call callbacks.
 *
 * @param timeout_ms how long to wait for something to do: 0 for not at all, negative for as long as it takes, but not
 *     without requests.
 * @return how many callbacks of requests were called. It returns early, with 0, when a signal was handled.
 */
BS_API int bs_poll(bs_client *client, int timeout_ms);

/** How many requests have no outcome yet. */
BS_API size_t bs_pending(const bs_client *client);

/**
 * For an event loop: a file descriptor that becomes readable when `bs_poll` with a timeout of 0 has something to do. It
 * stays the same. Do not read it.
 */
BS_API int bs_fd(const bs_client *client);

/** For an event loop: in how many milliseconds `bs_poll` is to be called although nothing arrives; negative for never. */
BS_API int bs_timeout(const bs_client *client);

/** Stop waiting for a request: its callback is not called. If it was sent, it may still take effect. */
BS_API void bs_cancel(bs_client *client, bs_ticket ticket);

/** Keep the result of a reply: the caller frees it, with `bs_free`. NULL if there is none. */
BS_API void *bs_take_result(bs_reply *reply);

/** Write a new id into a buffer: 26 characters that sort by time, and NUL. */
BS_API void bs_new_id(bs_client *client, char id[27]);

/**
 * Send a request by its name and wait for its result, both as JSON; it may be of a later level than this library. Bytes
 * are base64 in the result, and cannot be sent.
 *
 * @param payload an object; unset for none.
 * @param result may be NULL.
 */
BS_API bs_code
bs_call(bs_client *client, const char *type, bs_json payload, const bs_request *request, bs_json **result);

/** `bs_call` without waiting: the reply's result is a `bs_json`. Returns 0 if the request is refused. */
BS_API bs_ticket bs_call_send(
    bs_client *client,
    const char *type,
    bs_json payload,
    const bs_request *request,
    bs_callback callback,
    void *context);

#include "backscroll/records.h"

#include "backscroll/payloads.h"

/** A query whose result is followed; see `bs_watch_next`. */
typedef struct bs_watch bs_watch;

#include "backscroll/operations.h"

/** Where to begin, and what to leave out. Strings are copied. */
typedef struct bs_changes_options {
    /** The cursor to begin after; `now` for the end of the feed, NULL for the first command of the log. */
    const char *after;
    /** Only what is in these rooms, ended by NULL. */
    const char *const *rooms;
    /** Only these kinds of items, such as `message`, ended by NULL. */
    const char *const *nouns;
    /** Which items changed, and not what they are. */
    bool without_values;
    /** About how many changes are read at once; the daemon's default if 0. */
    int limit;
} bs_changes_options;

/** Follows what changes in a scope. */
typedef struct bs_changes bs_changes;

/**
 * Follow the feed for ever: what changed after a cursor, in order, and what changes next.
 *
 * Store the cursor of `bs_changes_cursor` together with what was applied, and begin there the next time. To start without
 * the history and lose nothing, store the `cursor` of `bs_get_changes` with `after` `now` first, and begin there.
 *
 * @param options may be NULL.
 * @param changes is to be freed with `bs_changes_free`, before the client.
 */
BS_API bs_code bs_changes_open(bs_client *client, const bs_changes_options *options, bs_changes **changes);

/**
 * The next change.
 *
 * If no daemon answers at the start, it fails. Later it goes on by itself when the daemon was restarted or could not
 * answer for a while. It cannot be called from a callback.
 *
 * @param change is the iterator's, until the next call; NULL if none came in time. Its `noun` tells which of `message`,
 *     `room`, … is set.
 * @param timeout_ms 0 for not waiting, negative for as long as it takes.
 * @return `BS_OK`; `BS_FEED_GAP` if the cursor is of another history of the scope: read everything anew, and open
 *     again after the error's `cursor`; or what else went wrong, and then it has ended.
 */
BS_API bs_code bs_changes_next(bs_changes *changes, const bs_item_change **change, int timeout_ms);

/**
 * Where to begin the next time: after the latest page of changes of which all were given out. NULL at the beginning of
 * the feed, and after `now` until its end was found.
 */
BS_API const char *bs_changes_cursor(const bs_changes *changes);

/** Whether the cursor is after the latest change, and not after one before it. */
BS_API bool bs_changes_at_page_end(const bs_changes *changes);

/** End following; NULL is allowed. */
BS_API void bs_changes_free(bs_changes *changes);

/** A result of a watched query. */
typedef struct bs_watched {
    const void *result; /**< What the query's function returns. */
    int64_t seq;        /**< The number of the scope's commit that it reflects. */
    bool gap;           /**< The scope has another history than at the result before, and may have fewer commits. */
} bs_watched;

/**
 * The result of a query, at first as it is, and then whenever it has changed, for ever. A slow reader gets the newest
 * result and misses those between; a result is never older than the one before it. It fails and goes on like
 * `bs_changes_next`. That only time passes is not noticed. The daemon lets 64 queries wait for one client: where there are
 * more, each may notice a change a second later. It cannot be called from a callback.
 *
 * @param watched is the watch's, until the next call; NULL if none came in time.
 * @param timeout_ms 0 for not waiting, negative for as long as it takes.
 */
BS_API bs_code bs_watch_next(bs_watch *watch, const bs_watched **watched, int timeout_ms);

/** End watching; NULL is allowed. */
BS_API void bs_watch_free(bs_watch *watch);

/** Reads the next bytes of a file into a buffer: returns how many, 0 at the end, negative if that failed. */
typedef ptrdiff_t (*bs_read)(void *context, void *buffer, size_t size);

/** Takes the next bytes of a file; returns false if that failed. */
typedef bool (*bs_write)(void *context, const void *data, size_t size);

/**
 * Upload a file in parts, of which only a few are in memory at a time. Parts that were put before it fails are removed by
 * the daemon within two days.
 *
 * @param mime the media type, such as `image/png`.
 * @param uploader_id who uploads it, as `bs_media` names it; may be NULL.
 * @param media may have existed; may be NULL.
 * @return `BS_OK`; `BS_ABORTED` if `read` failed; or what else went wrong.
 */
BS_API bs_code
bs_upload(bs_client *client, bs_read read, void *context, const char *mime, const char *uploader_id, bs_media **media);

/**
 * Download a file, part by part.
 *
 * @return `BS_OK`; `BS_NOT_FOUND` for an unknown media; `BS_ABORTED` if `write` failed; `BS_STORAGE`, after all was
 *     written, if the bytes are not those that were put; or what else went wrong.
 */
BS_API bs_code bs_download(bs_client *client, const char *media_id, bs_write write, void *context);

/** `bs_upload` of what a stream has from here to its end. */
BS_API bs_code
bs_upload_file(bs_client *client, FILE *file, const char *mime, const char *uploader_id, bs_media **media);

/** `bs_download` into a stream, which is not flushed. */
BS_API bs_code bs_download_file(bs_client *client, const char *media_id, FILE *file);

#ifdef __cplusplus
}
#endif

#endif
