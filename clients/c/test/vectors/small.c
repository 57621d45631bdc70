/** `hello.json`, `refusals.json` and `scenarios.json`. */

#include <regex.h>
#include <zmq.h>

#include "../../src/address.h"
#include "../../src/json.h"
#include "../../src/wire.h"
#include "runner.h"

char *play_hello(json_t *vector, json_t *file) {
    (void)file;
    json_t *endpoints = json_object_get(vector, "endpoints");
    size_t count = json_array_size(endpoints);
    bs_text *texts = calloc(count + 1, sizeof *texts);
    CHECK(texts != NULL);
    for (size_t at = 0; at < count; at++) texts[at] = bs_text_of(json_string_value(json_array_get(endpoints, at)));
    char proof[DIGEST_CHARS + 1];
    bsi_proof_of(text_of(vector, "token"), text_of(vector, "nonce"), texts, count, proof);
    json_t *found = json_string(proof);
    char *why = difference("proof", json_object_get(vector, "proof"), found);
    json_decref(found);
    free(texts);
    return why;
}

/* Bodies that no client makes, sent over one connection of this one. */

static void *context;
static struct wire wire;

static void await(bool *condition) {
    for (int turns = 0; !*condition && turns < 1000; turns++) {
        bsi_wire_notice(&wire);
        if (!*condition) (void)bsi_wire_wait(&wire, TIMEOUT_MS / 10);
    }
    CHECK(*condition);
}

static void open_wire(void) {
    if (context != NULL) return;
    context = zmq_ctx_new();
    struct address address = {.endpoint = daemon_endpoint(the_daemon())};
    CHECK(bsi_wire_open(context, &address, false, &wire) == NULL);
    await(&wire.is_ready);
}

/** The reply to a body: JSON is answered in JSON. */
static json_t *reply_to(struct buffer *body) {
    open_wire();
    CHECK(bsi_wire_send(&wire, body));
    zmq_msg_t reply;
    zmq_msg_init(&reply);
    while (!bsi_wire_receive(&wire, &reply)) {
        bsi_wire_notice(&wire);
        CHECK(wire.reason == NULL);
        (void)bsi_wire_wait(&wire, TIMEOUT_MS);
    }
    const char *data = zmq_msg_data(&reply);
    size_t size = zmq_msg_size(&reply);
    bool is_json = size > 0 && *data == '{';
    json_t *read = is_json ? json_loadb(data, size, JSON_ALLOW_NUL, NULL) : json_of_msgpack(data, size);
    zmq_msg_close(&reply);
    CHECK(read != NULL);
    return read;
}

/** A text with its placeholders replaced by what they stand for. */
static struct buffer expanded(const char *text, json_t *expand) {
    struct buffer written = {0};
    while (*text != '\0') {
        const char *name;
        json_t *part;
        size_t skipped = 0;
        json_object_foreach(expand, name, part) {
            if (strncmp(text, name, strlen(name)) != 0) continue;
            json_int_t times = json_integer_value(json_array_get(part, 1));
            while (times-- > 0) bsi_buffer_text(&written, json_string_value(json_array_get(part, 0)));
            skipped = strlen(name);
            break;
        }
        if (skipped == 0) bsi_buffer_append(&written, text, 1);
        text += skipped > 0 ? skipped : 1;
    }
    return written;
}

/** Whether a pattern matches all of a text. Of Python's expressions the vectors use what POSIX has too, but `\d` and `\w`. */
static bool matches(const char *pattern, const char *text) {
    struct buffer posix = {0};
    bsi_buffer_text(&posix, "^(");
    for (; *pattern != '\0'; pattern++) {
        if (strncmp(pattern, "\\d", 2) == 0 || strncmp(pattern, "\\w", 2) == 0) {
            bsi_buffer_text(&posix, *++pattern == 'd' ? "[0-9]" : "[A-Za-z0-9_]");
        } else if (*pattern == '\\' && pattern[1] != '\0') {
            bsi_buffer_append(&posix, pattern++, 2);
        } else {
            bsi_buffer_append(&posix, pattern, 1);
        }
    }
    bsi_buffer_append(&posix, ")$", 3);
    regex_t compiled;
    bool is_valid = regcomp(&compiled, (const char *)posix.data, REG_EXTENDED | REG_NOSUB) == 0;
    bool is_match = is_valid && regexec(&compiled, text, 0, NULL, 0) == 0;
    if (is_valid) regfree(&compiled);
    bsi_buffer_free(&posix);
    return is_match;
}

static char *compare_refusal(json_t *vector, json_t *reply) {
    json_t *error = json_deep_copy(json_object_get(reply, "error"));
    json_t *expected = json_deep_copy(json_object_get(vector, "error"));
    if (error == NULL) return told("the daemon accepts it");
    json_t *path = json_object_get(json_object_get(error, "details"), "path");
    if (path != NULL) json_object_set(error, "path", path);
    json_object_del(error, "details");
    const char *pattern = text_of(expected, "message"), *message = text_of(error, "message");
    char *why = matches(pattern, message) ? NULL : told("message: expected %s, got %s", pattern, message);
    json_object_del(expected, "message");
    json_object_del(error, "message");
    if (why == NULL) why = difference("id", json_object_get(vector, "id"), json_object_get(reply, "id"));
    if (why == NULL) why = difference("error", expected, error);
    json_decref(error);
    json_decref(expected);
    return why;
}

char *play_refusal(json_t *vector, json_t *file) {
    (void)file;
    json_t *each;
    size_t index;
    json_array_foreach(json_object_get(vector, "before"), index, each) {
        char *text = json_dumps(each, 0);
        struct buffer body = {0};
        bsi_buffer_text(&body, text);
        free(text);
        json_t *reply = reply_to(&body);
        bool is_ok = json_is_true(json_object_get(reply, "ok"));
        json_decref(reply);
        if (!is_ok) return told("a request before it is refused");
    }
    struct buffer body = {0};
    if (json_object_get(vector, "hex") != NULL)
        append_hex(&body, text_of(vector, "hex"));
    else
        body = expanded(text_of(vector, "json"), json_object_get(vector, "expand"));
    json_t *reply = reply_to(&body);
    char *why = compare_refusal(vector, reply);
    json_decref(reply);
    return why;
}

/* Scenarios. */

/** A payload with what its placeholders stand for: a new reference. */
static json_t *filled(json_t *value, json_t *bound) {
    const char *text = json_string_value(value), *name;
    json_t *each, *copy;
    size_t index;
    if (text != NULL) {
        if (*text != '$') return json_incref(value);
        return text[1] == '$' ? json_string(text + 1) : json_incref(json_object_get(bound, text));
    }
    if (json_is_array(value)) {
        copy = json_array();
        json_array_foreach(value, index, each) json_array_append_new(copy, filled(each, bound));
        return copy;
    }
    if (!json_is_object(value)) return json_incref(value);
    copy = json_object();
    json_object_foreach(value, name, each) json_object_set_new(copy, name, filled(each, bound));
    return copy;
}

/** What differs from what is expected, if anything; placeholders take what is there the first time. */
static char *match(json_t *expected, json_t *actual, const char *where, json_t *bound) {
    const char *text = json_string_value(expected), *name;
    json_t *each;
    size_t index;
    if (text != NULL && *text == '$') {
        if (strcmp(text, "$any") == 0) return NULL;
        if (text[1] == '$')
            return actual && json_is_string(actual) && !strcmp(json_string_value(actual), text + 1)
                       ? NULL
                       : told("%s: expected %s", where, text + 1);
        if (json_object_get(bound, text) == NULL) json_object_set(bound, text, actual);
        return difference(where, json_object_get(bound, text), actual);
    }
    bool are_objects = json_is_object(expected) && json_is_object(actual);
    bool are_arrays = json_is_array(expected) && json_is_array(actual);
    if (!are_objects && !are_arrays) return difference(where, expected, actual);
    size_t sizes[] = {
        are_arrays ? json_array_size(expected) : json_object_size(expected),
        are_arrays ? json_array_size(actual) : json_object_size(actual)};
    if (sizes[0] != sizes[1]) return difference(where, expected, actual);
    char *why = NULL;
    if (are_arrays) {
        json_array_foreach(expected, index, each) {
            char *inner = told("%s[%zu]", where, index);
            if (why == NULL) why = match(each, json_array_get(actual, index), inner, bound);
            free(inner);
        }
        return why;
    }
    json_object_foreach(expected, name, each) {
        char *inner = told("%s.%s", where, name);
        if (why == NULL) why = match(each, json_object_get(actual, name), inner, bound);
        free(inner);
    }
    return why;
}

static char *compare_step(json_t *step, const struct outcome *outcome, json_t *bound) {
    json_t *error = json_object_get(step, "error");
    if (error == NULL && outcome->error_name != NULL)
        return told("expected a result, got the error %s", outcome->error_name);
    if (error == NULL) return match(json_object_get(step, "result"), outcome->result, "result", bound);
    if (outcome->error_name == NULL) return told("expected the error %s, got a result", text_of(error, "code"));
    json_t *details = json_deep_copy(outcome->error_details), *path = json_incref(json_object_get(details, "path"));
    json_object_del(details, "path");
    json_t *found = json_pack("{s:s, s:o}", "code", outcome->error_name, "details", details);
    json_object_set_new(found, "path", path != NULL ? path : json_null());
    const char *name;
    json_t *each;
    char *why = NULL;
    json_object_foreach(error, name, each) {
        if (why == NULL) why = match(each, json_object_get(found, name), name, bound);
    }
    json_decref(found);
    return why;
}

static char *play_step(json_t *step, const char *scope, json_t *bound) {
    static json_t *nothing;
    if (nothing == NULL) nothing = json_object();
    char *unknown = unknown_key(step, "type id payload scope meanwhile result error");
    if (unknown != NULL) return unknown;
    char *own_scope = told("%s%s", scope, text_of(step, "scope"));
    bs_client *client = client_in(own_scope);
    free(own_scope);
    json_t *given = json_object_get(step, "payload"), *payload = filled(given != NULL ? given : nothing, bound);
    char *json = json_dumps(payload, 0);
    const char *id = json_string_value(json_object_get(step, "id"));
    bool is_typed = strcmp(text_of(json_object_get(step, "error"), "code"), "invalid") != 0;
    struct outcome outcome;
    send_json(client, text_of(step, "type"), json, id, is_typed, &outcome);
    free(json);
    json_decref(payload);
    json_t *inner;
    size_t index;
    char *why = NULL;
    json_array_foreach(json_object_get(step, "meanwhile"), index, inner) {
        (void)bs_poll(client, 20); // so that its query is sent, and waits
        if (why == NULL) why = play_step(inner, scope, bound);
    }
    await_outcome(client, &outcome);
    if (why == NULL) why = compare_step(step, &outcome, bound);
    outcome_free(&outcome);
    return why;
}

char *play_scenario(json_t *vector, json_t *file) {
    (void)file;
    static int scopes;
    char *scope = told("scope-%d", ++scopes), *why = NULL;
    json_t *bound = json_object(), *step;
    size_t index;
    json_array_foreach(json_object_get(vector, "steps"), index, step) {
        if (why != NULL) continue;
        char *differs = play_step(step, scope, bound);
        if (differs != NULL) why = told("steps[%zu] (%s): %s", index, text_of(step, "type"), differs);
        free(differs);
    }
    json_decref(bound);
    free(scope);
    return why;
}
