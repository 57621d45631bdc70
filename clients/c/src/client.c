#include "client.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"

enum { TIMEOUT_MS = 5000 };
/** The only event of an idle client's turn would be its end. */
enum { WAIT_MS_MAX = 3600 * 1000 };
enum { LOG_CHARS_MAX = 1000, REPLIES_AT_ONCE = 64 };

/* Small things that the header promises. */

bs_text bs_text_of(const char *string) {
    return string == NULL ? (bs_text){0} : (bs_text){string, strlen(string)};
}

bs_json bs_json_of(const char *string) {
    return string == NULL ? (bs_json){0} : (bs_json){string, strlen(string)};
}

bool bs_text_is(bs_text text, const char *string) {
    if (text.data == NULL || string == NULL) return text.data == NULL && string == NULL;
    return text.size == strlen(string) && memcmp(text.data, string, text.size) == 0;
}

void bs_free(const void *result) {
    bsi_arena_free(result);
}

void bs_new_id(bs_client *client, char id[27]) {
    bsi_ulid_new(&client->pending.last_id, id);
}

void *bs_take_result(bs_reply *reply) {
    void *result = (void *)(uintptr_t)reply->result;
    reply->result = NULL;
    return result;
}

/* Making and freeing. */

/** Copy a string that may be NULL; false if there is no memory. */
static bool copy_string(char **target, const char *source) {
    *target = source == NULL ? NULL : bsi_joined(source, "", "");
    return source == NULL || *target != NULL;
}

static bs_error *set_up(bs_client *client, const bs_client_options *options) {
    bool is_copied = copy_string(&client->location.data_dir, options->data_dir) &&
                     copy_string(&client->location.endpoint, options->endpoint) &&
                     copy_string(&client->location.token, options->token) &&
                     copy_string(&client->location.keys_file, options->keys_file) &&
                     copy_string(&client->scope, options->scope);
    if (!is_copied) return bsi_no_memory;
    if (options->timeout_ms < 0) {
        return bsi_error(BS_INVALID, NULL, "timeout_ms is a number of milliseconds, not %d", options->timeout_ms);
    }
    client->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    client->hooks = *options;
    if (sodium_init() < 0) return bsi_error(BS_INVALID, NULL, "this system has no source of randomness");
    bsi_pending_init(&client->pending);
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    client->zmq = zmq_ctx_new();
    if (client->epoll < 0 || client->zmq == NULL) return bsi_unavailable("cannot set up sockets: too many are open");
    return options->endpoint == NULL ? NULL : bsi_endpoint_check(options->endpoint);
}

bs_code bs_client_new(const bs_client_options *options, bs_client **made) {
    static const bs_client_options DEFAULTS;
    bs_client *client = *made = calloc(1, sizeof *client);
    if (client == NULL) return BS_NO_MEMORY;
    client->epoll = -1;
    client->process = getpid();
    client->last_notice = &client->notices;
    client->pending.retry_at = NEVER;
    bs_error *error = set_up(client, options != NULL ? options : &DEFAULTS);
    bsi_transport_init(&client->transport, client->zmq, &client->location, client->epoll);
    if (error == NULL) return BS_OK;
    client->pending.is_closed = true;
    return bsi_fail(client, error);
}

static bool is_forked(const bs_client *client) {
    return client->process != getpid();
}

bs_error *bsi_check_process(const bs_client *client) {
    if (!is_forked(client)) return NULL;
    return bsi_error(BS_INVALID, NULL, "the client was made before a fork: make a new one");
}

void bs_client_free(bs_client *client) {
    if (client == NULL) return;
    if (!is_forked(client)) {
        bs_close(client);
        while (client->zmq != NULL && zmq_ctx_term(client->zmq) != 0 && zmq_errno() == EINTR) continue;
        if (client->daemon > 0) waitpid(client->daemon, NULL, WNOHANG);
    }
    if (client->epoll >= 0) close(client->epoll);
    bsi_pending_free(&client->pending);
    for (struct notice *each = client->notices, *next; each != NULL; each = next) {
        next = each->next;
        bsi_error_free(each->problem);
        free(each);
    }
    if (client->location.token != NULL) sodium_memzero(client->location.token, strlen(client->location.token));
    free(client->location.data_dir);
    free(client->location.endpoint);
    free(client->location.token);
    free(client->location.keys_file);
    free(client->scope);
    bsi_error_free(client->problem);
    bsi_error_free(client->error);
    free(client);
}

bs_code bsi_fail(bs_client *client, bs_error *error) {
    bsi_error_free(client->error);
    client->error = error;
    return error->code;
}

const bs_error *bs_last_error(const bs_client *client) {
    return client == NULL ? bsi_no_memory : client->error;
}

int64_t bs_last_seq(const bs_client *client) {
    return client->last_seq;
}

size_t bs_pending(const bs_client *client) {
    return client->pending.count;
}

/* What happens. */

/** Send what can be sent now. */
static void flush(bs_client *client) {
    struct pending *pending = &client->pending;
    struct call *call = bsi_pending_next(pending);
    if (call == NULL || !client->transport.is_connected) return;
    bsi_wire_notice(&client->transport.wire); // a client that was idle may not know yet that its connection is lost
    if (client->transport.wire.reason != NULL) return;
    for (; call != NULL; call = bsi_pending_next(pending)) {
        struct buffer body = {0};
        const char *token = bsi_transport_token(&client->transport);
        bool is_packed = bsi_pending_mark_sent(pending, call, bsi_now(), token, &body);
        // Without memory everything is sent again, in its order, when there may be some.
        if (!is_packed) bsi_buffer_free(&body);
        if (!is_packed || !bsi_transport_send(&client->transport, &body)) {
            bsi_transport_drop(&client->transport, "there is no memory");
            return;
        }
    }
}

/** Note that the application is to be told of a connection, or with a problem that there is none. */
static void note(bs_client *client, const bs_error *problem) {
    if (client->hooks.log == NULL && client->hooks.on_connection == NULL) return;
    struct notice *notice = calloc(1, sizeof *notice);
    if (notice == NULL) return;
    if (problem != NULL) notice->problem = bsi_error_copy(problem);
    *client->last_notice = notice;
    client->last_notice = &notice->next;
}

static void set_problem(bs_client *client, bs_error *problem) {
    bsi_error_free(client->problem);
    client->problem = problem;
    note(client, problem);
}

static void received(bs_client *client, zmq_msg_t *body, int64_t now) {
    bs_error *error = bsi_pending_handle_reply(&client->pending, zmq_msg_data(body), zmq_msg_size(body), now);
    if (error == NULL) return;
    bsi_pending_fail(&client->pending, error, true); // it is unknown which call it belongs to
    bsi_error_free(error);
}

/**
 * Handle what has happened to the connection; whether that was all. After some replies the application is told of them first,
 * so that not all results are in memory at once.
 */
static bool handle_events(bs_client *client) {
    zmq_msg_t body;
    zmq_msg_init(&body);
    int replies = 0;
    while (replies < REPLIES_AT_ONCE) {
        bs_error *problem;
        int64_t now = bsi_now();
        switch (bsi_transport_next(&client->transport, now, &body, &problem)) {
        case TRANSPORT_IDLE:
            zmq_msg_close(&body);
            return true;
        case TRANSPORT_CONNECTED:
            set_problem(client, NULL);
            bsi_pending_reconnected(&client->pending);
            break;
        case TRANSPORT_REPLY:
            received(client, &body, now);
            replies++;
            break;
        case TRANSPORT_LOST:
            bsi_pending_lost(&client->pending);
            // What does not go away by waiting is said at once.
            if (problem->fault == BS_FAULT_CALLER) bsi_pending_fail(&client->pending, problem, false);
            set_problem(client, problem);
            break;
        }
        flush(client);
        bsi_transport_set_active(&client->transport, client->pending.count > 0, now);
    }
    zmq_msg_close(&body);
    return false;
}

static void time_out(bs_client *client, struct call *call) {
    static const char BEHIND[] = "too many requests before it have no reply yet";
    bool was_sent = bsi_call_was_sent(call);
    bs_error *error = !was_sent && client->problem != NULL
                          ? bsi_error_copy(client->problem)
                          : bsi_call_unanswered(call, !was_sent && client->transport.is_connected ? BEHIND : NULL);
    if (bsi_pending_time_out(&client->pending, call, error, client->transport.received_at)) {
        bsi_transport_drop(&client->transport, "the daemon does not answer");
    }
}

/** Do all that there is to do until now. What has arrived is handled before deadlines: its reply may be there. */
static void work(bs_client *client) {
    struct call *call;
    if (!handle_events(client)) return;
    int64_t now = bsi_now();
    while ((call = bsi_pending_next_deadline(&client->pending)) != NULL && call->deadline <= now)
        time_out(client, call);
    bsi_pending_queue_retry(&client->pending, now);
    flush(client);
    bsi_transport_set_active(&client->transport, client->pending.count > 0, now);
}

/* Telling the application. */

/** Give the application a line for its log; a long one is cut off. */
__attribute__((format(printf, 4, 5))) static void
write_log(const bs_client *client, bs_log_level level, const char *request, const char *format, ...) {
    char line[LOG_CHARS_MAX + 1];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    client->hooks.log(client->hooks.context, level, line, request);
}

/** Log the outcome of a request. The message of a caller's error may quote what people wrote. */
static void log_outcome(const bs_client *client, const struct call *call) {
    const bs_error *error = call->error;
    long long ms = (bsi_now() - call->begun) / MS;
    if (client->hooks.log == NULL) return;
    if (error == NULL) {
        write_log(client, BS_LOG_DEBUG, call->id, "%s: ok in %lld ms", call->type, ms);
    } else if (error->fault == BS_FAULT_DAEMON) {
        write_log(client, BS_LOG_WARNING, call->id, "%s: %s: %s", call->type, error->name, error->message);
    } else if (error->path != NULL) {
        write_log(client, BS_LOG_DEBUG, call->id, "%s: %s at %s", call->type, error->name, error->path);
    } else {
        write_log(client, BS_LOG_DEBUG, call->id, "%s: %s", call->type, error->name);
    }
}

static void tell_notices(bs_client *client) {
    for (struct notice *notice; (notice = client->notices) != NULL; free(notice)) {
        client->notices = notice->next;
        if (client->notices == NULL) client->last_notice = &client->notices;
        const bs_error *problem = notice->problem;
        bool is_logged = client->hooks.log != NULL && !client->pending.is_closed;
        if (is_logged && problem == NULL) write_log(client, BS_LOG_DEBUG, NULL, "connected");
        if (is_logged && problem != NULL) {
            write_log(client, BS_LOG_WARNING, NULL, "not connected: %s", problem->message);
        }
        if (client->hooks.on_connection != NULL && !client->pending.is_closed) {
            client->hooks.on_connection(client->hooks.context, problem);
        }
        bsi_error_free(notice->problem);
    }
}

/** Call what waits for outcomes; returns how many callbacks were called. Any of them may call this client. */
static int tell(bs_client *client) {
    int told = 0;
    tell_notices(client);
    for (struct call *call; (call = bsi_pending_take_settled(&client->pending)) != NULL; told++) {
        log_outcome(client, call);
        bs_reply reply = {
            .code = call->error == NULL ? BS_OK : call->error->code,
            .error = call->error,
            .result = call->value,
            .seq = call->seq,
            .request_id = call->id,
        };
        call->value = NULL;
        call->error = NULL;
        if (call->callback != NULL) call->callback(call->context, &reply);
        bs_free(reply.result); // unless they were taken
        bsi_error_free(reply.error);
        bsi_call_free(call);
    }
    return told;
}

/* Waiting. */

/** When there is something to do although nothing arrives. */
static int64_t next_timer(const bs_client *client) {
    int64_t timer = bsi_transport_timer(&client->transport);
    const struct call *call = bsi_pending_next_deadline(&client->pending);
    if (call != NULL && call->deadline < timer) timer = call->deadline;
    return client->pending.retry_at < timer ? client->pending.retry_at : timer;
}

/** The time until then in milliseconds, rounded up. */
static int ms_until(int64_t time, int64_t now) {
    if (time <= now) return 0;
    int64_t ms = (time - now + MS - 1) / MS;
    return ms > WAIT_MS_MAX ? WAIT_MS_MAX : (int)ms;
}

int64_t bsi_until(int timeout_ms) {
    return timeout_ms < 0 ? NEVER : bsi_now() + timeout_ms * MS;
}

int bsi_turn(bs_client *client, int64_t until) {
    if (is_forked(client)) return 0;
    for (;;) {
        work(client);
        int told = tell(client);
        int64_t now = bsi_now(), timer = next_timer(client);
        if (told > 0 || now >= until) return told;
        if (!bsi_wire_wait(&client->transport.wire, ms_until(timer < until ? timer : until, now))) return -1;
    }
}

int bs_poll(bs_client *client, int timeout_ms) {
    bool is_idle = client->pending.count == 0 && client->pending.settled.first == NULL;
    int told = bsi_turn(client, timeout_ms < 0 && is_idle ? 0 : bsi_until(timeout_ms));
    return told > 0 ? told : 0;
}

int bs_fd(const bs_client *client) {
    return client->epoll;
}

int bs_timeout(const bs_client *client) {
    bool is_due = client->pending.settled.first != NULL || client->notices != NULL;
    if (is_due || bsi_wire_has_input(&client->transport.wire)) return 0;
    int64_t timer = next_timer(client);
    return timer == NEVER ? -1 : ms_until(timer, bsi_now());
}

void bs_close(bs_client *client) {
    if (client->pending.is_closed || is_forked(client)) return;
    bsi_pending_close(&client->pending);
    bsi_transport_close(&client->transport);
    tell(client);
}

/* Requests. */

bs_ticket bsi_send_encoded(
    bs_client *client,
    const char *type,
    const struct operation *operation,
    const struct result_type *result,
    struct buffer *payload,
    const bs_request *request,
    bs_callback callback,
    void *context) {
    static const bs_request DEFAULTS;
    const bs_request *own = request != NULL ? request : &DEFAULTS;
    struct envelope envelope = {
        .timeout_ms = own->timeout_ms > 0 ? own->timeout_ms : client->timeout_ms,
        .scope = client->scope,
        .request_id = own->request_id,
        .traceparent = own->traceparent,
        .result = result,
        .now = bsi_now(),
    };
    if (envelope.traceparent == NULL && client->hooks.traceparent != NULL) {
        envelope.traceparent = client->hooks.traceparent(client->hooks.context);
    }
    struct call *call = NULL;
    bs_error *error = bsi_check_process(client);
    if (error == NULL && own->timeout_ms < 0) {
        error = bsi_error(BS_INVALID, NULL, "timeout_ms is a number of milliseconds, not %d", own->timeout_ms);
    }
    if (error != NULL)
        bsi_buffer_free(payload);
    else
        error = bsi_call_new(&client->pending, type, operation, payload, &envelope, &call);
    if (error == NULL) error = bsi_pending_add(&client->pending, call);
    if (error != NULL) {
        bsi_call_free(call);
        bsi_fail(client, error);
        return 0;
    }
    call->callback = callback;
    call->context = context;
    bsi_transport_set_active(&client->transport, true, envelope.now);
    flush(client);
    return call->number;
}

bs_ticket bsi_send(
    bs_client *client,
    const struct operation *operation,
    const void *payload,
    const bs_request *request,
    bs_callback callback,
    void *context) {
    struct buffer encoded = {0};
    bs_error *error = bsi_encode_record(&encoded, operation->payload, payload, &bsi_payload_path);
    if (error == NULL) {
        return bsi_send_encoded(
            client, operation->name, operation, &operation->result, &encoded, request, callback, context);
    }
    bsi_buffer_free(&encoded);
    bsi_fail(client, error);
    return 0;
}

void bsi_arrived(void *context, bs_reply *reply) {
    struct waiting *waiting = context;
    waiting->is_done = true;
    waiting->error = (bs_error *)(uintptr_t)reply->error;
    reply->error = NULL;
    waiting->result = bs_take_result(reply);
    waiting->seq = reply->seq;
}

void bsi_wait(bs_client *client, const struct waiting *waiting) {
    while (!waiting->is_done) (void)bsi_turn(client, NEVER);
}

/** Wait for a request that was sent; returns its code, and its result. */
static bs_code outcome_of(bs_client *client, bs_ticket ticket, struct waiting *waiting) {
    if (ticket == 0) return client->error->code;
    bsi_wait(client, waiting);
    if (waiting->error != NULL) return bsi_fail(client, waiting->error);
    client->last_seq = waiting->seq;
    return BS_OK;
}

bs_code bsi_call(
    bs_client *client,
    const struct operation *operation,
    const void *payload,
    const bs_request *request,
    void *result) {
    struct waiting waiting = {0};
    enum kind kind = operation->result.kind;
    bool is_plain = kind == KIND_INTEGER || kind == KIND_BOOLEAN;
    if (result != NULL && !is_plain) *(void **)result = NULL;
    bs_ticket ticket = bsi_send(client, operation, payload, request, bsi_arrived, &waiting);
    bs_code code = outcome_of(client, ticket, &waiting);
    if (result != NULL && code == BS_OK && !is_plain) {
        *(void **)result = waiting.result;
        return code;
    }
    if (result != NULL && code == BS_OK) memcpy(result, waiting.result, bsi_size_of(kind, NULL));
    bs_free(waiting.result);
    return code;
}

bs_ticket bs_call_send(
    bs_client *client,
    const char *type,
    bs_json payload,
    const bs_request *request,
    bs_callback callback,
    void *context) {
    static const char EMPTY[] = "{}";
    static const struct result_type JSON_RESULT = {KIND_JSON, false, NULL};
    struct buffer encoded = {0};
    bool is_given = payload.data != NULL;
    bs_error *error = bsi_json_read(
        is_given ? payload.data : EMPTY, is_given ? payload.size : strlen(EMPTY), &encoded, &bsi_payload_path);
    struct reader written = {encoded.data, encoded.data + encoded.size};
    struct token head = {0};
    if (error == NULL && type == NULL) error = bsi_error(BS_INVALID, NULL, "name an operation");
    if (error == NULL && (!bsi_read(&written, &head) || head.type != TOKEN_MAP)) {
        error = bsi_error(BS_INVALID, &bsi_payload_path, "expected an object, such as {\"roomId\": \"home\"}");
    }
    if (error != NULL) {
        bsi_buffer_free(&encoded);
        bsi_fail(client, error);
        return 0;
    }
    return bsi_send_encoded(client, type, bsi_operation_of(type), &JSON_RESULT, &encoded, request, callback, context);
}

bs_code bs_call(bs_client *client, const char *type, bs_json payload, const bs_request *request, bs_json **result) {
    struct waiting waiting = {0};
    if (result != NULL) *result = NULL;
    bs_ticket ticket = bs_call_send(client, type, payload, request, bsi_arrived, &waiting);
    bs_code code = outcome_of(client, ticket, &waiting);
    if (result != NULL)
        *result = waiting.result;
    else
        bs_free(waiting.result);
    return code;
}

void bs_cancel(bs_client *client, bs_ticket ticket) {
    struct call *call = bsi_pending_find(&client->pending, ticket);
    if (call != NULL) bsi_pending_forget(&client->pending, call);
    for (call = client->pending.settled.first; call != NULL; call = call->queue_after) {
        if (call->number == ticket) call->callback = NULL;
    }
}
