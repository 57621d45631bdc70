/**
 * What a client has under way, without any I/O: encoding, decoding, and sending again.
 *
 *     call ──add──▶ queue ──next, mark_sent──▶ daemon
 *                   ▲  ▲                         │
 *     reconnected ──┘  └───── handle_reply ◀─────┘
 *
 * The daemon executes a command once, however often it receives the same id. So unanswered calls are sent again:
 *
 * - On a new connection, all of them in the order first sent, before anything new.
 * - After a refusal while an earlier attempt is in doubt, because its connection was lost. Such a refusal says nothing
 *   about that attempt, unless it is the caller's fault. The call is sent again after `RETRY_DELAY`, unless others were
 *   sent after it: then its outcome is unknown.
 *
 * A call is never sent twice on one connection, which loses nothing while it lives: the copy would stand behind later
 * requests, and could take effect after them. The ids of maintenance operations are not remembered by the daemon, so these
 * are sent once; if their connection is lost, the outcome is unknown.
 *
 * A connection may be lost while the daemon runs on, with the refusal of a command unread. Sent again, it is judged anew,
 * after commands that were sent later. So commands have `client`, an id of this object, and `n`, which rises: the daemon
 * does not execute a command after a later one of its client, and answers `superseded`.
 *
 * Times are microseconds of the monotonic clock. Calls that have an outcome wait in a list until they are taken.
 */

#ifndef BSI_PENDING_H
#define BSI_PENDING_H

#include "codec.h"
#include "ulid.h"

#define MS INT64_C(1000)
#define RETRY_DELAY (100 * MS)
/** Later than all times. */
#define NEVER INT64_MAX

/** Requests without a reply, and their bytes. Queries that wait in the daemon do not count: it has a bound for them. */
enum { IN_FLIGHT_MAX = 1000, IN_FLIGHT_BYTES_MAX = 32 * 1024 * 1024 };
/** All calls of a client, also those that are not sent yet, and the bytes of their bodies. */
enum { CALLS_MAX = 100000, CALLS_BYTES_MAX = 256 * 1024 * 1024 };
/** Lists of the tables of calls by their ids. */
enum { BUCKETS = 4096 };
enum { ID_BYTES_MAX = BS_REQUEST_ID_BYTES_MAX };

extern const char bsi_closed[];

/** One request, from its creation until its outcome was taken. */
struct call {
    char id[ID_BYTES_MAX + 1];
    char *type;
    const struct operation *operation; /**< NULL if this level has none of this type. */
    struct result_type result;
    struct buffer payload; /**< The same bytes whenever it is sent. */
    char *scope;           /**< NULL for the default one. */
    char *traceparent;     /**< NULL if there is none. */
    int64_t n;             /**< Its number among the commands of the client; 0 of what is none. */
    int64_t wait_ms;       /**< How long the daemon may wait until it answers. */
    int64_t timeout_ms;
    int64_t begun;
    int64_t deadline; /**< When its caller stops waiting. */
    size_t bytes;     /**< Of the body, about. */
    uint64_t number;  /**< Its place among all calls of the client. */
    int64_t sent_at;  /**< When it was sent on the current connection. */
    bool awaits_reply;
    bool is_in_doubt;
    bool is_queued;
    bool is_settled;
    bool is_forgotten; /**< Nobody waits for it any more. */
    bs_error *error;   /**< The outcome, if it is an error; or else these. */
    void *value;
    int64_t seq;
    bs_callback callback;
    void *context;
    size_t heap_index;
    struct call *next_of_id;
    struct call *before, *after;             /**< Among all calls, in the order first sent. */
    struct call *queue_before, *queue_after; /**< In the queue; after it is settled, in the list of those. */
};

/** A list of calls. */
struct call_list {
    struct call *first;
    struct call *last;
};

/** A request that has no reply on this connection, also if nobody waits for it any more. */
struct flight {
    char id[ID_BYTES_MAX + 1];
    size_t bytes;
    struct flight *next;
};

/** A client's calls without an outcome, in the order first sent, and the queue of those to send next. */
struct pending {
    char client[ULID_CHARS + 1];
    struct ulid last_id;
    int64_t n;
    bool has_told_level;
    bool is_closed;
    int64_t retry_at; /**< When to call `bsi_pending_queue_retry`; `NEVER` if there is nothing to retry. */
    struct call *refused;
    struct call_list calls;
    size_t count;
    size_t bytes;
    struct call_list queue;
    struct call_list settled;
    struct call *by_id[BUCKETS];
    struct call **heap; /**< By their deadlines, the next one first. */
    size_t heap_room;
    struct flight *in_flight[BUCKETS];
    size_t in_flight_count;
    size_t in_flight_bytes;
    uint64_t added;
    uint64_t highest_sent;
};

/** What the envelope of a request has besides its operation. */
struct envelope {
    int64_t timeout_ms;
    const char *scope;
    const char *request_id;
    const char *traceparent;
    const struct result_type *result;
    int64_t now; /**< When the caller began to wait. */
};

void bsi_pending_init(struct pending *pending);
void bsi_pending_free(struct pending *pending);

/** A new call. It takes the bytes of the payload over, an encoded map, in any case. */
bs_error *bsi_call_new(
    struct pending *pending,
    const char *type,
    const struct operation *operation,
    struct buffer *payload,
    const struct envelope *envelope,
    struct call **call);
void bsi_call_free(struct call *call);

/** Whether the call may have had an effect, while it has no outcome. */
bool bsi_call_was_sent(const struct call *call);

/** The error for a call that got no reply: `BS_UNAVAILABLE` if it was not sent, otherwise `BS_NO_REPLY`. */
bs_error *bsi_call_unanswered(const struct call *call, const char *why);

/** Append a call to the queue; an error if the client was closed, has too many calls, or one with this id. */
bs_error *bsi_pending_add(struct pending *pending, struct call *call);

/** The next call to send; NULL if there is none, or too many are in flight. */
struct call *bsi_pending_next(struct pending *pending);

/** Note that the next call is sent now, and append its body; false if there is no memory, and then nothing is noted. */
bool bsi_pending_mark_sent(
    struct pending *pending, struct call *call, int64_t now, const char *token, struct buffer *body);

/** Process a reply; an error if it is none. A reply to a call that nobody waits for is dropped. */
bs_error *bsi_pending_handle_reply(struct pending *pending, const void *body, size_t size, int64_t now);

/** There is a new connection: queue all calls without an outcome to be sent on it, in order. */
void bsi_pending_reconnected(struct pending *pending);

/** The connection was lost: what was sent on it is in doubt. */
void bsi_pending_lost(struct pending *pending);

/** Queue the refused call, before those that were never sent, if its delay is over. */
void bsi_pending_queue_retry(struct pending *pending, int64_t now);

/** Settle all calls with copies of an error, or only those that were not sent. */
void bsi_pending_fail(struct pending *pending, const bs_error *error, bool also_sent);

/** Settle all calls, as the client is closed. */
void bsi_pending_close(struct pending *pending);

/** The call whose deadline comes next; NULL if there is none. */
struct call *bsi_pending_next_deadline(const struct pending *pending);

/**
 * Settle a call whose deadline has passed, with an error that it takes over; `received_at` is when the latest reply arrived.
 * Returns whether the connection is to be given up as lost: if nothing has arrived since the call was sent, and if nobody
 * waits for any of the requests that fill the window, because their replies may never come.
 */
bool bsi_pending_time_out(struct pending *pending, struct call *call, bs_error *error, int64_t received_at);

/** Drop a call that nobody waits for any more, and free it. */
void bsi_pending_forget(struct pending *pending, struct call *call);

/** Find a call by its number; NULL if it has an outcome. */
struct call *bsi_pending_find(const struct pending *pending, uint64_t number);

/** Take the next call that has its outcome, to be freed; NULL if there is none. */
struct call *bsi_pending_take_settled(struct pending *pending);

#endif
