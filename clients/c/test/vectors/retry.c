/** `retry.json`: the events are played on the client's own `struct pending`. */

#include "../../src/json.h"
#include "../../src/pending.h"
#include "runner.h"

enum { TIMEOUT = 5000 };

/** The machine, what has settled, and under which `client` commands were sent. */
struct machine {
    struct pending pending;
    json_t *outcomes;
    int64_t
        received_at; /**< When the latest reply arrived; before anything was sent, if none did on this connection. */
    bool gives_up;
    char client[ULID_CHARS + 1];
};

static struct machine *machine_new(void) {
    struct machine *machine = calloc(1, sizeof *machine);
    CHECK(machine != NULL);
    bsi_pending_init(&machine->pending);
    machine->outcomes = json_object();
    machine->received_at = -1;
    return machine;
}

static void machine_free(struct machine *machine) {
    bsi_pending_free(&machine->pending);
    json_decref(machine->outcomes);
    free(machine);
}

/** Note the outcomes of calls that were settled: those of an event are new. */
static void take_outcomes(struct machine *machine, json_t *settled) {
    for (struct call *call; (call = bsi_pending_take_settled(&machine->pending)) != NULL; bsi_call_free(call)) {
        json_t *outcome = json_string(call->error == NULL ? "ok" : call->error->name);
        json_object_set(machine->outcomes, call->id, outcome);
        json_array_append_new(settled, json_pack("{s:s, s:o}", "call", call->id, "outcome", outcome));
    }
}

static struct call *call_named(struct machine *machine, const char *name) {
    for (struct call *call = machine->pending.calls.first; call != NULL; call = call->after) {
        if (strcmp(call->id, name) == 0) return call;
    }
    return NULL;
}

/** The state of a call, in the words of the table. */
static const char *state_of(struct machine *machine, const char *name) {
    struct call *call = call_named(machine, name);
    if (call == NULL) return "settled";
    if (call->awaits_reply) return call->is_in_doubt ? "resent" : "sent";
    if (!call->is_in_doubt) return "to-send";
    return machine->pending.retry_at < NEVER ? "to-retry" : "to-resend";
}

/** The names of the calls in `a`, or in `a-1 to a-1000`, as an array. */
static json_t *calls_in(const char *names) {
    json_t *calls = json_array();
    const char *to = strstr(names, " to ");
    if (to == NULL) {
        json_array_append_new(calls, json_string(names));
        return calls;
    }
    char group[64];
    const char *dash = memrchr(names, '-', (size_t)(to - names));
    CHECK(dash != NULL && dash - names < (ptrdiff_t)sizeof group);
    memcpy(group, names, (size_t)(dash - names));
    group[dash - names] = '\0';
    long first = strtol(dash + 1, NULL, 10), last = strtol(strrchr(to, '-') + 1, NULL, 10);
    for (long number = first; number <= last; number++) {
        json_array_append_new(calls, json_sprintf("%s-%ld", group, number));
    }
    return calls;
}

/** Whether an entry comes so many calls after the first one of a range: nothing but `n` differs, which rises with them. */
static bool is_next(json_t *first, size_t after, json_t *entry) {
    const char *name = text_of(first, "call"), *dash = strrchr(name, '-');
    if (dash == NULL) return false;
    json_t *expected = json_deep_copy(first), *n = json_object_get(first, "n");
    long number = strtol(dash + 1, NULL, 10) + (long)after;
    json_object_set_new(expected, "call", json_sprintf("%.*s-%ld", (int)(dash - name), name, number));
    if (n != NULL) json_object_set_new(expected, "n", json_integer(json_integer_value(n) + (json_int_t)after));
    bool is_equal = json_equal(expected, entry) == 1;
    json_decref(expected);
    return is_equal;
}

/** Entries of calls with successive numbers as one; a new reference. */
static json_t *in_ranges(json_t *entries) {
    json_t *ranges = json_array();
    size_t count = json_array_size(entries);
    for (size_t at = 0, next; at < count; at = next) {
        json_t *first = json_array_get(entries, at), *range = json_deep_copy(first);
        for (next = at + 1; next < count && is_next(first, next - at, json_array_get(entries, next));) next++;
        if (next > at + 1) {
            const char *last = text_of(json_array_get(entries, next - 1), "call");
            json_object_set_new(range, "call", json_sprintf("%s to %s", text_of(first, "call"), last));
        }
        json_array_append_new(ranges, range);
    }
    return ranges;
}

static int64_t integer_of(json_t *object, const char *name, int64_t otherwise) {
    json_t *value = json_object_get(object, name);
    return value == NULL ? otherwise : json_integer_value(value);
}

static const char *type_of(const char *kind) {
    static const char *const TYPES[][2] = {
        {"command", "initialize"},
        {"query", "get-user"},
        {"waiting", "get-changes"},
        {"maintenance", "delete-scope"},
        {"large", "save-user"}};
    for (size_t at = 0; at < COUNT_OF(TYPES); at++) {
        if (strcmp(TYPES[at][0], kind) == 0) return TYPES[at][1];
    }
    fail(__FILE__, __LINE__, "unknown kind %s", kind);
}

static void add(struct machine *machine, json_t *event, const char *name, json_t *settled) {
    const struct operation *operation = bsi_operation_of(type_of(text_of(event, "kind")));
    struct buffer payload = {0};
    size_t kilobytes = (size_t)integer_of(event, "kilobytes", 0), head = bsi_pack_begin(&payload), count = 0;
    if (json_object_get(event, "waitMs") != NULL) {
        bsi_pack_string(&payload, "waitMs");
        bsi_pack_integer(&payload, integer_of(event, "waitMs", 0));
        count++;
    }
    if (kilobytes > 0) {
        char *padding = malloc(1000 * kilobytes);
        memset(padding, 'x', 1000 * kilobytes);
        bsi_pack_string(&payload, "padding");
        bsi_pack_text(&payload, padding, 1000 * kilobytes);
        free(padding);
        count++;
    }
    bsi_pack_end_map(&payload, head, count);
    struct envelope envelope = {
        .timeout_ms = integer_of(event, "timeoutMs", TIMEOUT),
        .request_id = name,
        .result = &operation->result,
        .now = integer_of(event, "at", 0) * MS,
    };
    struct call *call;
    CHECK(bsi_call_new(&machine->pending, operation->name, operation, &payload, &envelope, &call) == NULL);
    bs_error *error = bsi_pending_add(&machine->pending, call);
    if (error == NULL) return;
    json_object_set_new(machine->outcomes, name, json_string(error->name));
    json_array_append_new(settled, json_pack("{s:s, s:s}", "call", name, "outcome", error->name));
    bsi_error_free(error);
    bsi_call_free(call);
}

/** Note what is sent of a body; how it is not as it should be. */
static char *note_sent(struct machine *machine, const struct call *call, const struct buffer *body, json_t *sends) {
    json_t *sent = json_of_msgpack(body->data, body->size);
    json_t *client = json_object_get(sent, "client"), *n = json_object_get(sent, "n");
    json_t *wait_ms = json_object_get(json_object_get(sent, "payload"), "waitMs");
    char *why = (client == NULL) != (n == NULL) ? told("`client` and `n` do not go together") : NULL;
    if (why == NULL && client != NULL) {
        bool is_first = *machine->client == '\0';
        if (is_first) snprintf(machine->client, sizeof machine->client, "%s", json_string_value(client));
        if (strcmp(machine->client, json_string_value(client)) != 0) why = told("commands have another `client`");
    }
    json_t *entry = json_pack("{s:s, s:O}", "call", call->id, "deadlineMs", json_object_get(sent, "deadlineMs"));
    if (n != NULL) json_object_set(entry, "n", n);
    if (call->wait_ms > 0) json_object_set(entry, "waitMs", wait_ms);
    json_array_append_new(sends, entry);
    json_decref(sent);
    return why;
}

static char *send_all(struct machine *machine, int64_t now, json_t *sends) {
    char *why = NULL;
    for (struct call *call; why == NULL && (call = bsi_pending_next(&machine->pending)) != NULL;) {
        struct buffer body = {0};
        CHECK(bsi_pending_mark_sent(&machine->pending, call, now, NULL, &body));
        // Of large bodies only that they are sent is looked at.
        why = note_sent(machine, call, &body, sends);
        bsi_buffer_free(&body);
    }
    return why;
}

static void reply(struct machine *machine, json_t *event, const char *name) {
    const char *with = text_of(event, "with");
    struct call *call = call_named(machine, name);
    json_t *body;
    if (strcmp(with, "ok") == 0) {
        json_t *page = json_pack("{s:[], s:s, s:b}", "changes", "cursor", "c", "more", 0);
        bool is_page = call != NULL && strcmp(call->type, "get-changes") == 0;
        body = json_pack("{s:s, s:b, s:O, s:i}", "id", name, "ok", 1, "result", is_page ? page : json_null(), "seq", 1);
        json_decref(page);
    } else {
        const char *fault = "daemon";
        for (bs_code code = BS_OK; code < BS_OTHER; code++) {
            if (strcmp(bsi_codes[code].name, with) == 0 && bsi_codes[code].fault == BS_FAULT_CALLER) fault = "caller";
        }
        json_t *id = json_pack("{s:s}", "id", name);
        body = refusal(id, with, fault, true);
        json_decref(id);
    }
    char *text = json_dumps(body, 0);
    struct buffer msgpack = {0};
    CHECK(bsi_json_read(text, strlen(text), &msgpack, &bsi_payload_path) == NULL);
    CHECK(
        bsi_pending_handle_reply(&machine->pending, msgpack.data, msgpack.size, integer_of(event, "at", 0) * MS) ==
        NULL);
    bsi_buffer_free(&msgpack);
    free(text);
    json_decref(body);
}

static void time_out(struct machine *machine, const char *name) {
    struct call *call = call_named(machine, name);
    if (call == NULL) return;
    bs_error *error = bsi_call_unanswered(call, NULL);
    if (bsi_pending_time_out(&machine->pending, call, error, machine->received_at)) machine->gives_up = true;
}

/** Do an event; `sends` and `settled` get what it leads to. */
static char *do_event(struct machine *machine, json_t *event, json_t *sends, json_t *settled) {
    const char *what = text_of(event, "do");
    int64_t now = integer_of(event, "at", 0) * MS;
    json_t *calls = calls_in(text_of(event, "call")), *each;
    size_t index;
    char *why = NULL;
    machine->gives_up = false;
    if (strcmp(what, "send") == 0)
        why = send_all(machine, now, sends);
    else if (strcmp(what, "connected") == 0) {
        machine->received_at = now - 1;
        bsi_pending_reconnected(&machine->pending);
    } else if (strcmp(what, "wait") == 0)
        bsi_pending_queue_retry(&machine->pending, now);
    else if (strcmp(what, "close") == 0)
        bsi_pending_close(&machine->pending);
    else {
        json_array_foreach(calls, index, each) {
            const char *name = json_string_value(each);
            if (strcmp(what, "add") == 0)
                add(machine, event, name, settled);
            else if (strcmp(what, "reply") == 0) {
                machine->received_at = now;
                reply(machine, event, name);
            } else if (strcmp(what, "deadline") == 0)
                time_out(machine, name);
            else
                why = told("unknown event %s", what);
        }
    }
    take_outcomes(machine, settled);
    json_decref(calls);
    return why;
}

/** Compare what an event led to with what it should have. */
static char *compare_event(const struct machine *machine, json_t *event, json_t *sends, json_t *settled) {
    json_t *expected_sends = json_object_get(event, "sends"), *nothing = json_array();
    json_t *ranges = in_ranges(sends), *outcomes = in_ranges(settled), *by_call = json_object(), *each;
    size_t index;
    json_array_foreach(outcomes, index, each)
        json_object_set(by_call, text_of(each, "call"), json_object_get(each, "outcome"));
    bool is_open = strcmp(text_of(event, "do"), "send") == 0 && expected_sends == NULL;
    char *why = is_open ? NULL : difference("sends", expected_sends != NULL ? expected_sends : nothing, ranges);
    json_t *expected = json_object_get(event, "outcomes"), *none = json_object();
    if (why == NULL) why = difference("outcomes", expected != NULL ? expected : none, by_call);
    bool gives_up = json_is_true(json_object_get(event, "givesUp"));
    if (why == NULL && gives_up != machine->gives_up) why = told("givesUp: expected %d", gives_up);
    json_decref(nothing);
    json_decref(none);
    json_decref(ranges);
    json_decref(outcomes);
    json_decref(by_call);
    return why;
}

/** Do an event; returns what it led to and should not have. */
static char *play(struct machine *machine, json_t *event) {
    char *why = unknown_key(event, "at do call kind waitMs timeoutMs kilobytes with sends outcomes givesUp");
    if (why != NULL) return why;
    json_t *sends = json_array(), *settled = json_array();
    why = do_event(machine, event, sends, settled);
    if (why == NULL) why = compare_event(machine, event, sends, settled);
    json_decref(sends);
    json_decref(settled);
    return why;
}

char *play_row(json_t *vector, json_t *file) {
    const char *state = text_of(vector, "state");
    char *plain = told("%.*s", (int)strcspn(state, ","), state);
    struct machine *machine = machine_new();
    json_t *event;
    size_t index;
    json_array_foreach(json_object_get(json_object_get(file, "states"), state), index, event)
        free(play(machine, event));
    json_t *before = json_string(plain), *found = json_string(state_of(machine, "a"));
    char *why = difference("the state before", before, found);
    json_decref(found);
    free(play(machine, json_object_get(vector, "event")));
    found = json_string(state_of(machine, "a"));
    json_t *outcome = strcmp(plain, "settled") == 0 ? NULL : json_object_get(machine->outcomes, "a");
    if (why == NULL) why = difference("to", json_object_get(vector, "to"), found);
    if (why == NULL) why = difference("outcome", json_object_get(vector, "outcome"), outcome);
    json_decref(before);
    json_decref(found);
    machine_free(machine);
    free(plain);
    return why;
}

char *play_sequence(json_t *vector, json_t *file) {
    (void)file;
    struct machine *machine = machine_new();
    json_t *event;
    size_t index;
    char *why = NULL;
    json_array_foreach(json_object_get(vector, "events"), index, event) {
        if (why != NULL) continue;
        char *differs = play(machine, event);
        if (differs != NULL) why = told("events[%zu] (%s): %s", index, text_of(event, "do"), differs);
        free(differs);
    }
    machine_free(machine);
    return why;
}
