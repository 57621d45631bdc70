/**
 * `codec.json` and `canonical.json`. The client has no canonical form: a daemon executes what it sends, and the digest in the
 * log tells whether the canonical form of that is the expected one.
 */

#include <sodium.h>

#include "../../src/json.h"
#include "../../src/pending.h"
#include "runner.h"

static const int64_t AT = INT64_C(1767225600000); // when the commands of the canonical vectors took effect

/** Compare an error with that of a vector. */
static char *compare_error(json_t *expected, const struct outcome *outcome) {
    json_t *path = json_object_get(outcome->error_details, "path");
    json_t *found = json_pack("{s:s, s:O*}", "code", outcome->error_name, "path", path);
    if (path == NULL) json_object_set_new(found, "path", json_null());
    char *differs = difference("error", expected, found);
    json_decref(found);
    return differs;
}

/** SHA-256(salt · canonical), in hex. */
static char *digest_of(const char *salt, const char *canonical) {
    struct buffer bytes = {0};
    append_hex(&bytes, salt);
    append_hex(&bytes, canonical);
    uint8_t digest[crypto_hash_sha256_BYTES];
    char hex[2 * sizeof digest + 1];
    crypto_hash_sha256(digest, bytes.data, bytes.size);
    bsi_buffer_free(&bytes);
    return told("%s", sodium_bin2hex(hex, sizeof hex, digest, sizeof digest));
}

static bs_log_page *log_at(bs_client *client, int64_t seq) {
    bs_get_log_payload payload = {.has_from_seq = true, .from_seq = seq, .has_limit = true, .limit = 1};
    bs_log_page *page;
    CHECK_CODE(client, BS_OK, bs_get_log(client, &payload, NULL, &page));
    return page;
}

/** Save what the requests refer to. */
static void prepare(bs_client *client) {
    bs_get_room_payload get = {.room_id = BS_TEXT("default")};
    bs_save_room_payload room = {.room = {.id = BS_TEXT("default"), .name = BS_TEXT("d")}};
    bs_save_message_payload message = message_of(1, "");
    bs_room *found;
    CHECK_CODE(client, BS_OK, bs_get_room(client, &get, NULL, &found));
    if (found == NULL) {
        CHECK_CODE(client, BS_OK, bs_save_room(client, &room, NULL));
        CHECK_CODE(client, BS_OK, bs_save_message(client, &message, NULL));
    }
    bs_free(found);
}

char *play_request(json_t *vector, json_t *file) {
    (void)file;
    bs_client *client = client_in("codec");
    prepare(client);
    json_t *error = json_object_get(vector, "error"), *json = json_object_get(vector, "json");
    struct buffer payload = {0};
    struct outcome outcome;
    // Where both encodings are given, both become the same struct.
    if (json != NULL) {
        send_json(client, text_of(vector, "type"), json_string_value(json), NULL, error == NULL, &outcome);
    } else {
        append_hex(&payload, text_of(vector, "msgpack"));
        send_request(client, text_of(vector, "type"), &payload, NULL, error == NULL, &outcome);
    }
    await_outcome(client, &outcome);
    char *why = NULL;
    if (outcome.error_name != NULL) {
        why = compare_error(error, &outcome);
    } else if (error != NULL) {
        why = told("the client sends it, and the daemon accepts it");
    } else {
        bs_log_page *page = log_at(client, outcome.seq);
        const bs_log_entry *entry = &page->entries.items[0];
        char *digest = digest_of(entry->salt.data, text_of(vector, "canonical"));
        if (!bs_text_is(entry->digest, digest)) {
            why = told("the canonical form of what was sent is another one: %s", entry->payload.data);
        }
        free(digest);
        bs_free(page);
    }
    outcome_free(&outcome);
    bsi_buffer_free(&payload);
    return why;
}

/** An error as the vectors have it. */
static json_t *error_as_json(const bs_error *error) {
    json_t *found = json_pack(
        "{s:s, s:s, s:b, s:s}", "code", error->name, "fault", error->fault == BS_FAULT_CALLER ? "caller" : "daemon",
        "retryable", error->retryable, "message", error->message);
    if (error->details.data != NULL) {
        json_object_set_new(found, "details", json_loadb(error->details.data, error->details.size, 0, NULL));
    }
    return found;
}

/** Compare the outcome of a call with a vector. */
static char *
compare_reply(json_t *vector, const struct operation *operation, const struct call *call, const bs_error *error) {
    bool is_invalid = json_is_true(json_object_get(vector, "invalid"));
    if (is_invalid) return error != NULL && error->code == BS_INTERNAL ? NULL : told("it is taken for a reply");
    json_t *found = NULL;
    char *why = NULL;
    if (error != NULL) {
        found = error_as_json(error);
        why = difference("error", json_object_get(vector, "error"), found);
        bool is_named = strcmp(bs_code_name(error->code), error->name) == 0 || error->code == BS_OTHER;
        if (why == NULL && !is_named) why = told("%s has the code %s", error->name, bs_code_name(error->code));
    } else {
        struct buffer encoded = {0};
        CHECK(bsi_encode_value(&encoded, &operation->result, call->value, &bsi_payload_path) == NULL);
        found = json_of_msgpack(encoded.data, encoded.size);
        why = difference("result", json_object_get(vector, "result"), found);
        bsi_buffer_free(&encoded);
        if (why != NULL && json_object_get(vector, "kept") != NULL) {
            free(why);
            why = difference("result", json_object_get(vector, "kept"), found);
        }
    }
    json_decref(found);
    return why;
}

char *play_reply(json_t *vector, json_t *file) {
    (void)file;
    const struct operation *operation = bsi_operation_of(text_of(vector, "type"));
    struct pending *pending = calloc(1, sizeof *pending);
    CHECK(pending != NULL && operation != NULL);
    bsi_pending_init(pending);
    struct buffer payload = {0}, sent = {0}, body = {0};
    bsi_pack_map(&payload, 0);
    struct envelope envelope = {.timeout_ms = TIMEOUT_MS, .request_id = "1", .result = &operation->result};
    struct call *call;
    CHECK(bsi_call_new(pending, operation->name, operation, &payload, &envelope, &call) == NULL);
    CHECK(bsi_pending_add(pending, call) == NULL && bsi_pending_mark_sent(pending, call, 0, NULL, &sent));
    const char *json = text_of(vector, "json");
    if (json_object_get(vector, "msgpack") != NULL)
        append_hex(&body, text_of(vector, "msgpack"));
    else
        bsi_buffer_append(&body, json, strlen(json)); // what is no reply in JSON is none to this client
    bs_error *error = bsi_pending_handle_reply(pending, body.data, body.size, 0);
    struct call *settled = bsi_pending_take_settled(pending);
    char *why = settled == NULL && error == NULL
                    ? told("it settles nothing")
                    : compare_reply(vector, operation, settled, error ? error : settled->error);
    bsi_call_free(settled);
    bsi_error_free(error);
    bsi_buffer_free(&sent);
    bsi_buffer_free(&body);
    bsi_pending_free(pending);
    free(pending);
    return why;
}

/** Whether the other payloads are answered as retries of the first one. */
static char *play_retries(bs_client *client, json_t *vector, int64_t seq, const char *id) {
    json_t *each;
    size_t index;
    char *why = NULL;
    json_array_foreach(json_object_get(vector, "json"), index, each) {
        struct outcome outcome;
        if (index == 0 || why != NULL) continue;
        send_json(client, text_of(vector, "type"), json_string_value(each), id, true, &outcome);
        await_outcome(client, &outcome);
        if (outcome.error_name != NULL)
            why = told("%s is not the same command: %s", json_string_value(each), outcome.error_name);
        else if (outcome.seq != seq)
            why = told("%s was executed again", json_string_value(each));
        outcome_free(&outcome);
    }
    return why;
}

char *play_canonical(json_t *vector, json_t *file) {
    (void)file;
    bs_client *client = client_in("canonical");
    bs_log_page *page = log_at(client, 1);
    int64_t seq = page->last_seq + 1;
    bs_free(page);
    char *id = told("c%lld", (long long)seq);
    bs_log_entry_input entry = {
        .seq = seq,
        .at = AT,
        .id = bs_text_of(id),
        .type = bs_text_of(text_of(vector, "type")),
        .payload = bs_json_of(json_string_value(json_array_get(json_object_get(vector, "json"), 0))),
        .salt = bs_text_of(text_of(vector, "salt")),
    };
    bs_append_log_payload payload = {.entries = {&entry, 1}};
    char *why = NULL, *digest = digest_of(text_of(vector, "salt"), text_of(vector, "canonical"));
    if (bs_append_log(client, &payload, NULL) != BS_OK) {
        why = told("append-log: %s", bs_last_error(client)->message);
    } else {
        page = log_at(client, seq);
        json_t *found = json_string(page->entries.items[0].digest.data), *computed = json_string(digest);
        why = difference("the digest in the log", json_object_get(vector, "digest"), found);
        if (why == NULL) why = difference("SHA-256(salt · canonical)", json_object_get(vector, "digest"), computed);
        json_decref(found);
        json_decref(computed);
        bs_free(page);
    }
    if (why == NULL) why = play_retries(client, vector, seq, id);
    free(digest);
    free(id);
    return why;
}
