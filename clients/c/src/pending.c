#include "pending.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"

const char bsi_closed[] = "the client was closed";

static const char DEFAULT_SCOPE[] = "default";

void bsi_pending_init(struct pending *pending) {
    pending->retry_at = NEVER;
    bsi_ulid_new(&pending->last_id, pending->client);
}

static size_t bucket_of(const char *id) {
    uint32_t hash = 2166136261U; // FNV-1a
    for (; *id != '\0'; id++) hash = (hash ^ (uint8_t)*id) * 16777619U;
    return hash % BUCKETS;
}

/* The queue, and the list of settled calls: a call is in one of them at most. */

static void list_append(struct call_list *list, struct call *call) {
    call->queue_before = list->last;
    call->queue_after = NULL;
    *(list->last != NULL ? &list->last->queue_after : &list->first) = call;
    list->last = call;
}

static void list_prepend(struct call_list *list, struct call *call) {
    call->queue_before = NULL;
    call->queue_after = list->first;
    *(list->first != NULL ? &list->first->queue_before : &list->last) = call;
    list->first = call;
}

static void list_remove(struct call_list *list, struct call *call) {
    *(call->queue_before != NULL ? &call->queue_before->queue_after : &list->first) = call->queue_after;
    *(call->queue_after != NULL ? &call->queue_after->queue_before : &list->last) = call->queue_before;
    call->queue_before = call->queue_after = NULL;
}

static void dequeue(struct pending *pending, struct call *call) {
    if (call->is_queued) list_remove(&pending->queue, call);
    call->is_queued = false;
}

/* The heap of deadlines. */

static void heap_put(struct pending *pending, size_t index, struct call *call) {
    pending->heap[index] = call;
    call->heap_index = index;
}

static void heap_up(struct pending *pending, size_t index) {
    struct call *call = pending->heap[index];
    for (size_t parent; index > 0; index = parent) {
        parent = (index - 1) / 2;
        if (pending->heap[parent]->deadline <= call->deadline) break;
        heap_put(pending, index, pending->heap[parent]);
    }
    heap_put(pending, index, call);
}

static void heap_down(struct pending *pending, size_t index) {
    struct call *call = pending->heap[index];
    for (size_t child; (child = 2 * index + 1) < pending->count; index = child) {
        bool is_right =
            child + 1 < pending->count && pending->heap[child + 1]->deadline < pending->heap[child]->deadline;
        if (is_right) child++;
        if (call->deadline <= pending->heap[child]->deadline) break;
        heap_put(pending, index, pending->heap[child]);
    }
    heap_put(pending, index, call);
}

static bool heap_reserve(struct pending *pending) {
    if (pending->count < pending->heap_room) return true;
    size_t room = pending->heap_room == 0 ? 64 : 2 * pending->heap_room;
    struct call **heap = realloc(pending->heap, room * sizeof *heap);
    if (heap == NULL) return false;
    pending->heap = heap;
    pending->heap_room = room;
    return true;
}

struct call *bsi_pending_next_deadline(const struct pending *pending) {
    return pending->count > 0 ? pending->heap[0] : NULL;
}

/* Calls. */

static char *copy_of(const char *string) {
    size_t size = strlen(string) + 1;
    char *copy = malloc(size);
    if (copy != NULL) memcpy(copy, string, size);
    return copy;
}

/** How long the daemon is asked to wait; 0 also for what it refuses, so that its refusal is waited for like any reply. */
static int64_t wait_ms_of(const struct buffer *payload) {
    struct reader map = {payload->data, payload->data + payload->size}, value;
    struct token token;
    if (!bsi_find(map, "waitMs", &value) || !bsi_read(&value, &token) || token.type != TOKEN_INTEGER) return 0;
    return token.integer > 0 && token.integer <= BS_WAIT_MS_MAX ? token.integer : 0;
}

static bool is_command(const struct call *call) {
    // Of a later level it may be one; the daemon ignores what only a command needs, where it is none.
    return call->operation == NULL || strcmp(call->operation->kind, "command") == 0;
}

static bs_error *check_id(const char *id) {
    size_t size = strlen(id);
    if (size >= 1 && size <= ID_BYTES_MAX && bsi_is_utf8(id, size)) return NULL;
    return bsi_error(BS_INVALID, NULL, "a request id must be text of 1 to %d bytes", (int)ID_BYTES_MAX);
}

static bs_error *check_size(const struct call *call) {
    bool is_log = strcmp(call->type, "append-log") == 0;
    long long most = is_log ? BS_LOG_BODY_BYTES_MAX : BS_BODY_BYTES_MAX;
    if ((long long)call->bytes <= most) return NULL;
    return bsi_error(
        BS_TOO_LARGE, NULL, "the body has %zu bytes; at most %lld are allowed", call->bytes, (long long)most);
}

/** Fill in what the envelope says; false if there is no memory. */
static bool fill(struct call *call, const char *type, const struct envelope *envelope) {
    bool is_default = envelope->scope == NULL || strcmp(envelope->scope, DEFAULT_SCOPE) == 0;
    call->type = copy_of(type);
    call->scope = is_default ? NULL : copy_of(envelope->scope);
    call->traceparent = envelope->traceparent == NULL ? NULL : copy_of(envelope->traceparent);
    bool has_scope = is_default || call->scope != NULL;
    return call->type != NULL && has_scope && (envelope->traceparent == NULL || call->traceparent != NULL);
}

bs_error *bsi_call_new(
    struct pending *pending,
    const char *type,
    const struct operation *operation,
    struct buffer *payload,
    const struct envelope *envelope,
    struct call **made) {
    static const size_t ENVELOPE_BYTES = 200;
    *made = NULL;
    struct call *call = calloc(1, sizeof *call);
    bs_error *error = call == NULL || payload->failed ? bsi_no_memory : NULL;
    if (error == NULL && envelope->request_id != NULL) error = check_id(envelope->request_id);
    if (error != NULL) {
        bsi_buffer_free(payload);
        free(call);
        return error;
    }
    call->operation = operation;
    call->result = *envelope->result;
    call->payload = *payload;
    *payload = (struct buffer){0};
    if (envelope->request_id != NULL)
        memcpy(call->id, envelope->request_id, strlen(envelope->request_id));
    else
        bsi_ulid_new(&pending->last_id, call->id);
    if (!fill(call, type, envelope)) {
        bsi_call_free(call);
        return bsi_no_memory;
    }
    call->wait_ms = wait_ms_of(&call->payload);
    call->timeout_ms = envelope->timeout_ms + call->wait_ms;
    call->begun = envelope->now;
    call->deadline = envelope->now + call->timeout_ms * MS;
    call->bytes = call->payload.size + ENVELOPE_BYTES + strlen(type) + (call->scope ? strlen(call->scope) : 0);
    error = check_size(call);
    if (error != NULL) {
        bsi_call_free(call);
        return error;
    }
    if (is_command(call)) call->n = ++pending->n;
    *made = call;
    return NULL;
}

void bsi_call_free(struct call *call) {
    if (call == NULL) return;
    bsi_buffer_free(&call->payload);
    free(call->type);
    free(call->scope);
    free(call->traceparent);
    bsi_error_free(call->error);
    bsi_arena_free(call->value);
    free(call);
}

bool bsi_call_was_sent(const struct call *call) {
    return call->awaits_reply || call->is_in_doubt;
}

bs_error *bsi_call_unanswered(const struct call *call, const char *why) {
    if (!bsi_call_was_sent(call)) {
        return bsi_unavailable("%s; nothing was sent", why != NULL ? why : "no daemon answers");
    }
    static const char UNKNOWN[] = "whether the request took effect is unknown";
    if (why != NULL) return bsi_error(BS_NO_REPLY, NULL, "%s: %s", why, UNKNOWN);
    return bsi_error(BS_NO_REPLY, NULL, "no reply within %lld ms: %s", (long long)call->timeout_ms, UNKNOWN);
}

static struct call *call_of(const struct pending *pending, const char *id) {
    for (struct call *call = pending->by_id[bucket_of(id)]; call != NULL; call = call->next_of_id) {
        if (strcmp(call->id, id) == 0) return call;
    }
    return NULL;
}

struct call *bsi_pending_find(const struct pending *pending, uint64_t number) {
    for (struct call *call = pending->calls.first; call != NULL; call = call->after) {
        if (call->number == number) return call;
    }
    return NULL;
}

static void append(struct pending *pending, struct call *call) {
    call->before = pending->calls.last;
    *(call->before != NULL ? &call->before->after : &pending->calls.first) = call;
    pending->calls.last = call;
    struct call **bucket = &pending->by_id[bucket_of(call->id)];
    call->next_of_id = *bucket;
    *bucket = call;
    pending->heap[pending->count] = call;
    pending->count++;
    heap_up(pending, pending->count - 1);
    pending->bytes += call->bytes;
}

/** Take a call out of all that holds those without an outcome. */
static void detach(struct pending *pending, struct call *call) {
    *(call->before != NULL ? &call->before->after : &pending->calls.first) = call->after;
    *(call->after != NULL ? &call->after->before : &pending->calls.last) = call->before;
    struct call **link = &pending->by_id[bucket_of(call->id)];
    while (*link != call) link = &(*link)->next_of_id;
    *link = call->next_of_id;
    pending->bytes -= call->bytes;
    struct call *last = pending->heap[--pending->count];
    if (last != call) {
        heap_put(pending, call->heap_index, last);
        heap_up(pending, last->heap_index);
        heap_down(pending, last->heap_index);
    }
    dequeue(pending, call);
    if (pending->refused == call) {
        pending->refused = NULL;
        pending->retry_at = NEVER;
    }
    call->is_settled = true;
}

bs_error *bsi_pending_add(struct pending *pending, struct call *call) {
    if (pending->is_closed) return bsi_call_unanswered(call, bsi_closed);
    if (call_of(pending, call->id) != NULL) {
        return bsi_error(BS_INVALID, NULL, "a request with the id \"%s\" is already in flight", call->id);
    }
    if (pending->count >= CALLS_MAX || pending->bytes + call->bytes > CALLS_BYTES_MAX) {
        bs_error *error = bsi_error(
            BS_BUSY, NULL,
            "%zu requests of this client, of %zu bytes, have no reply yet: wait for some; nothing was sent",
            pending->count, pending->bytes);
        if (error != bsi_no_memory) error->retryable = true;
        return error;
    }
    if (!heap_reserve(pending)) return bsi_no_memory;
    bsi_pending_queue_retry(pending, NEVER); // a refused call goes before a new one
    call->number = ++pending->added;
    append(pending, call);
    list_append(&pending->queue, call);
    call->is_queued = true;
    return NULL;
}

/** Whether so many bytes more would be too much; one request is always allowed. */
static bool is_full(const struct pending *pending, size_t bytes) {
    size_t many = pending->in_flight_count;
    return many >= IN_FLIGHT_MAX || (many > 0 && pending->in_flight_bytes + bytes > IN_FLIGHT_BYTES_MAX);
}

struct call *bsi_pending_next(struct pending *pending) {
    struct call *call = pending->queue.first;
    return call == NULL || (call->wait_ms == 0 && is_full(pending, call->bytes)) ? NULL : call;
}

/** Note a request at the end of those with its id; false if there is no memory. */
static bool take_off(struct pending *pending, const struct call *call) {
    struct flight *flight = calloc(1, sizeof *flight);
    if (flight == NULL) return false;
    memcpy(flight->id, call->id, sizeof flight->id);
    flight->bytes = call->bytes;
    struct flight **link = &pending->in_flight[bucket_of(call->id)];
    while (*link != NULL) link = &(*link)->next;
    *link = flight;
    pending->in_flight_count++;
    pending->in_flight_bytes += call->bytes;
    return true;
}

/**
 * Note a reply. True if it is to a request that nobody waits for, after which the same id was sent again: a refusal of the
 * first says nothing about the second.
 */
static bool is_of_earlier(struct pending *pending, const char *id) {
    struct flight **link = &pending->in_flight[bucket_of(id)];
    while (*link != NULL && strcmp((*link)->id, id) != 0) link = &(*link)->next;
    struct flight *flight = *link;
    if (flight == NULL) return false;
    *link = flight->next;
    pending->in_flight_count--;
    pending->in_flight_bytes -= flight->bytes;
    bool is_earlier = false;
    for (struct flight *later = flight->next; later != NULL; later = later->next) {
        if (strcmp(later->id, id) == 0) is_earlier = true;
    }
    free(flight);
    return is_earlier;
}

static void land_all(struct pending *pending) {
    for (size_t at = 0; at < BUCKETS && pending->in_flight_count > 0; at++) {
        for (struct flight *flight = pending->in_flight[at], *next; flight != NULL; flight = next) {
            next = flight->next;
            free(flight);
            pending->in_flight_count--;
        }
        pending->in_flight[at] = NULL;
    }
    pending->in_flight_bytes = 0;
}

/** Append a payload in which `waitMs` is another one. */
static void pack_waiting(struct buffer *body, const struct buffer *payload, int64_t wait_ms) {
    struct reader reader = {payload->data, payload->data + payload->size};
    struct token head, name;
    if (!bsi_read(&reader, &head)) return;
    bsi_pack_map(body, head.size);
    for (size_t at = 0; at < head.size && bsi_read(&reader, &name); at++) {
        bsi_pack_text(body, (const char *)name.data, name.size);
        const uint8_t *begun = reader.at;
        (void)bsi_skip(&reader);
        if (bsi_token_is(&name, "waitMs"))
            bsi_pack_integer(body, wait_ms);
        else
            bsi_buffer_append(body, begun, (size_t)(reader.at - begun));
    }
}

static void pack_text_field(struct buffer *body, const char *name, const char *value, size_t *count) {
    if (value == NULL) return;
    bsi_pack_string(body, name);
    bsi_pack_string(body, value);
    (*count)++;
}

static void pack_integer_field(struct buffer *body, const char *name, int64_t value, size_t *count) {
    bsi_pack_string(body, name);
    bsi_pack_integer(body, value);
    (*count)++;
}

/**
 * Append what to send now. Attempts differ only in `deadlineMs`, the remaining time. A query that waits must wait so much
 * less, or its reply would come after the deadline.
 */
static void
pack_body(const struct pending *pending, const struct call *call, int64_t now, const char *token, struct buffer *body) {
    int64_t remaining_ms = (call->deadline - now + MS - 1) / MS;
    if (remaining_ms < 1) remaining_ms = 1;
    size_t head = bsi_pack_begin(body), count = 0;
    pack_text_field(body, "id", call->id, &count);
    pack_text_field(body, "type", call->type, &count);
    pack_text_field(body, "scope", call->scope, &count);
    if (call->n > 0) {
        pack_text_field(body, "client", pending->client, &count);
        pack_integer_field(body, "n", call->n, &count);
    }
    pack_text_field(body, "traceparent", call->traceparent, &count);
    pack_integer_field(body, "deadlineMs", remaining_ms, &count);
    if (!pending->has_told_level) pack_integer_field(body, "level", BS_LEVEL, &count);
    pack_text_field(body, "auth", token, &count);
    bsi_pack_string(body, "payload");
    count++;
    if (call->wait_ms > 0 && remaining_ms < call->timeout_ms) {
        int64_t wait_ms = call->wait_ms - (call->timeout_ms - remaining_ms);
        pack_waiting(body, &call->payload, wait_ms > 0 ? wait_ms : 0);
    } else {
        bsi_buffer_append(body, call->payload.data, call->payload.size);
    }
    bsi_pack_end_map(body, head, count);
}

bool bsi_pending_mark_sent(
    struct pending *pending, struct call *call, int64_t now, const char *token, struct buffer *body) {
    pack_body(pending, call, now, token, body);
    if (body->failed || (call->wait_ms == 0 && !take_off(pending, call))) return false;
    pending->has_told_level = true;
    dequeue(pending, call);
    call->awaits_reply = true;
    call->sent_at = now;
    if (call->number > pending->highest_sent) pending->highest_sent = call->number;
    return true;
}

/** Give a call its outcome. */
static void settle(struct pending *pending, struct call *call, bs_error *error) {
    detach(pending, call);
    bsi_buffer_free(&call->payload);
    call->error = error;
    list_append(&pending->settled, call);
}

/** What a reply says, by its parts. */
struct reply {
    char id[ID_BYTES_MAX + 1];
    bool is_ok;
    struct reader content; /**< The result, or the error. */
    int64_t seq;
};

/** Read a reply. Where its id is none of a request, `id` is empty; false if it is no reply. */
static bool open_reply(const void *body, size_t size, struct reply *reply) {
    struct reader map = {body, (const uint8_t *)body + size}, found, whole = map;
    struct token token;
    if (!bsi_skip(&whole) || whole.at != whole.end) return false;
    if (!bsi_find(map, "ok", &found) || !bsi_read(&found, &token) || token.type != TOKEN_BOOLEAN) return false;
    *reply = (struct reply){.is_ok = token.boolean};
    if (!bsi_find(map, reply->is_ok ? "result" : "error", &reply->content)) return false;
    struct reader error = reply->content;
    if (!reply->is_ok && (!bsi_read(&error, &token) || token.type != TOKEN_MAP)) return false;
    if (bsi_find(map, "seq", &found) && bsi_read(&found, &token) && token.type == TOKEN_INTEGER) {
        reply->seq = token.integer;
    }
    bool has_id = bsi_find(map, "id", &found) && bsi_read(&found, &token) && token.type == TOKEN_TEXT;
    if (has_id && token.size <= ID_BYTES_MAX) memcpy(reply->id, token.data, token.size);
    return true;
}

bs_error *bsi_pending_handle_reply(struct pending *pending, const void *body, size_t size, int64_t now) {
    struct reply reply;
    if (!open_reply(body, size, &reply)) return bsi_error(BS_INTERNAL, NULL, "the daemon sent an invalid reply");
    if (*reply.id == '\0' || is_of_earlier(pending, reply.id)) return NULL;
    struct call *call = call_of(pending, reply.id);
    if (call == NULL || !call->awaits_reply) return NULL;
    call->awaits_reply = false;
    call->seq = reply.seq;
    bs_error *error =
        reply.is_ok ? bsi_decode_result(&reply.content, &call->result, &call->value) : bsi_error_from(reply.content);
    if (!call->is_in_doubt || reply.is_ok || error->fault == BS_FAULT_CALLER) {
        settle(pending, call, error);
        return NULL;
    }
    bsi_error_free(error);
    if (call->number < pending->highest_sent) {
        settle(pending, call, bsi_call_unanswered(call, "a retry was refused, and other requests were sent after it"));
        return NULL;
    }
    pending->refused = call;
    pending->retry_at = now + RETRY_DELAY;
    if (pending->queue.first != NULL) bsi_pending_queue_retry(pending, NEVER);
    return NULL;
}

void bsi_pending_lost(struct pending *pending) {
    land_all(pending);
    pending->refused = NULL;
    pending->retry_at = NEVER;
    for (struct call *call = pending->calls.first, *next; call != NULL; call = next) {
        next = call->after;
        dequeue(pending, call);
        call->is_in_doubt = bsi_call_was_sent(call);
        call->awaits_reply = false;
        bool is_once = call->operation != NULL && strcmp(call->operation->kind, "maintenance") == 0;
        if (call->is_in_doubt && is_once) settle(pending, call, bsi_call_unanswered(call, "the connection was lost"));
    }
}

void bsi_pending_reconnected(struct pending *pending) {
    bsi_pending_lost(pending);
    for (struct call *call = pending->calls.first; call != NULL; call = call->after) {
        list_append(&pending->queue, call);
        call->is_queued = true;
    }
}

void bsi_pending_queue_retry(struct pending *pending, int64_t now) {
    struct call *call = pending->refused;
    if (call == NULL || now < pending->retry_at) return;
    list_prepend(&pending->queue, call);
    call->is_queued = true;
    pending->refused = NULL;
    pending->retry_at = NEVER;
}

void bsi_pending_fail(struct pending *pending, const bs_error *error, bool also_sent) {
    for (struct call *call = pending->calls.first, *next; call != NULL; call = next) {
        next = call->after;
        if (also_sent || !bsi_call_was_sent(call)) settle(pending, call, bsi_error_copy(error));
    }
}

void bsi_pending_close(struct pending *pending) {
    pending->is_closed = true;
    for (struct call *call = pending->calls.first, *next; call != NULL; call = next) {
        next = call->after;
        settle(pending, call, bsi_call_unanswered(call, bsi_closed));
    }
}

static bool is_waited_for(const struct pending *pending) {
    for (size_t at = 0; at < BUCKETS; at++) {
        for (const struct flight *flight = pending->in_flight[at]; flight != NULL; flight = flight->next) {
            if (call_of(pending, flight->id) != NULL) return true;
        }
    }
    return false;
}

bool bsi_pending_time_out(struct pending *pending, struct call *call, bs_error *error, int64_t received_at) {
    bool is_silent = call->awaits_reply && received_at < call->sent_at;
    bool is_waiting = call->wait_ms > 0;
    size_t bytes = call->bytes;
    settle(pending, call, error);
    if (is_silent || is_waiting || !is_full(pending, bytes)) return is_silent;
    return !is_waited_for(pending);
}

void bsi_pending_forget(struct pending *pending, struct call *call) {
    detach(pending, call);
    bsi_call_free(call);
}

struct call *bsi_pending_take_settled(struct pending *pending) {
    struct call *call = pending->settled.first;
    if (call != NULL) list_remove(&pending->settled, call);
    return call;
}

void bsi_pending_free(struct pending *pending) {
    while (pending->calls.first != NULL) bsi_pending_forget(pending, pending->calls.first);
    for (struct call *call; (call = bsi_pending_take_settled(pending)) != NULL;) bsi_call_free(call);
    land_all(pending);
    free(pending->heap);
}
