/** Requests of the vectors: a payload becomes the struct of its operation, which the client sends. */

#include "../../src/client.h"
#include "../../src/json.h"
#include "runner.h"

void outcome_free(struct outcome *outcome) {
    free(outcome->error_name);
    json_decref(outcome->error_details);
    json_decref(outcome->result);
    *outcome = (struct outcome){0};
}

static void take_error(struct outcome *outcome, const bs_error *error) {
    outcome->is_done = true;
    outcome->code = error->code;
    outcome->error_name = told("%s", error->name);
    outcome->error_details =
        error->details.data == NULL ? json_object() : json_loadb(error->details.data, error->details.size, 0, NULL);
    if (error->path != NULL) json_object_set_new(outcome->error_details, "path", json_string(error->path));
}

/** The operation whose result is read now, and where to put it. */
struct expected {
    const struct operation *operation;
    struct outcome *outcome;
};

static void arrived(void *context, bs_reply *reply) {
    struct expected *expected = context;
    struct outcome *outcome = expected->outcome;
    outcome->is_done = true;
    outcome->seq = reply->seq;
    if (reply->error != NULL) {
        take_error(outcome, reply->error);
    } else if (expected->operation == NULL) {
        const bs_json *json = reply->result;
        outcome->result = json_loadb(json->data, json->size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    } else {
        // The typed result, written as JSON again.
        struct buffer encoded = {0};
        bs_error *error = bsi_encode_value(&encoded, &expected->operation->result, reply->result, &bsi_payload_path);
        if (error != NULL)
            take_error(outcome, error);
        else
            outcome->result = json_of_msgpack(encoded.data, encoded.size);
        bsi_error_free(error);
        bsi_buffer_free(&encoded);
    }
    free(expected);
}

/** The bytes of base64; false if it is none. */
static bool read_base64(const struct token *token, struct buffer *bytes) {
    struct buffer again = {0};
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int count = 0;
    for (size_t at = 0; at < token->size && token->data[at] != '='; at++) {
        const char *digit = strchr(DIGITS, token->data[at]);
        if (digit == NULL || *digit == '\0') return false;
        bits = bits << 6 | (uint32_t)(digit - DIGITS);
        count += 6;
        if (count >= 8) {
            uint8_t byte = (uint8_t)(bits >> (count -= 8));
            bsi_buffer_append(bytes, &byte, 1);
        }
    }
    struct buffer packed = {0};
    bsi_pack_bytes(&packed, bytes->data, bytes->size);
    struct reader reader = {packed.data, packed.data + packed.size};
    (void)bsi_json_write(&reader, &again);
    bool is_same = again.size == token->size + 2 && memcmp(again.data + 1, token->data, token->size) == 0;
    bsi_buffer_free(&packed);
    bsi_buffer_free(&again);
    return is_same;
}

/** The payload with bytes in the place of base64. */
static struct buffer with_bytes(const struct operation *operation, const struct buffer *payload) {
    struct reader reader = {payload->data, payload->data + payload->size};
    struct token head, name, value;
    struct buffer changed = {0};
    if (!bsi_read(&reader, &head) || head.type != TOKEN_MAP) return changed;
    bsi_pack_map(&changed, head.size);
    for (size_t at = 0; at < head.size; at++) {
        const uint8_t *begun = reader.at;
        CHECK(bsi_read(&reader, &name));
        const uint8_t *from = reader.at;
        struct reader of_value = reader;
        CHECK(bsi_skip(&reader) && bsi_read(&of_value, &value));
        struct buffer bytes = {0};
        bool is_bytes = false;
        for (size_t field = 0; field < operation->payload->count; field++) {
            const struct field *each = &operation->payload->fields[field];
            if (bsi_token_is(&name, each->name) && each->kind == KIND_BYTES) is_bytes = value.type == TOKEN_TEXT;
        }
        if (is_bytes && read_base64(&value, &bytes)) {
            bsi_buffer_append(&changed, begun, (size_t)(from - begun));
            bsi_pack_bytes(&changed, bytes.data, bytes.size);
        } else {
            bsi_buffer_append(&changed, begun, (size_t)(reader.at - begun));
        }
        bsi_buffer_free(&bytes);
    }
    return changed;
}

/** Read the commands of a batch, each as the payload of its operation; false if one is not typed. */
static bool read_commands(const struct buffer *payload, struct arena *arena, bs_batch_payload *batch) {
    struct reader reader = {payload->data, payload->data + payload->size}, list, type, inner;
    struct token head, name;
    if (!bsi_find(reader, "commands", &list) || !bsi_read(&list, &head) || head.type != TOKEN_ARRAY) return false;
    bs_batched_command *commands = bsi_arena_take(arena, head.size * sizeof *commands);
    batch->commands = (bs_batched_command_array){commands, head.size};
    for (size_t at = 0; at < head.size; at++) {
        if (!bsi_find(list, "type", &type) || !bsi_read(&type, &name) || name.type != TOKEN_TEXT) return false;
        commands[at].type = bsi_arena_copy(arena, name.data, name.size);
        const struct operation *operation = bsi_operation_of(commands[at].type);
        bool has_payload = bsi_find(list, "payload", &inner);
        if (operation == NULL || !bsi_skip(&list)) return false;
        if (operation->payload == NULL || !has_payload) continue;
        void *value = bsi_arena_take(arena, operation->payload->size);
        bs_error *error = bsi_decode_record(&inner, operation->payload, value, arena, &bsi_payload_path);
        commands[at].payload = value;
        if (error != NULL) {
            bsi_error_free(error);
            return false;
        }
    }
    return true;
}

/** Send the typed payload of an operation; 0 if the payload is none, or is refused. */
static bs_ticket send_typed(
    bs_client *client,
    const struct operation *operation,
    const struct buffer *payload,
    const bs_request *request,
    struct expected *expected) {
    struct arena *arena;
    struct buffer changed = with_bytes(operation, payload);
    struct reader reader = {changed.data, changed.data + changed.size};
    void *value = bsi_arena_new(operation->payload->size, &arena);
    bs_error *error = NULL;
    bool is_read;
    if (strcmp(operation->name, "batch") == 0) {
        is_read = read_commands(payload, arena, value);
    } else {
        error = bsi_decode_record(&reader, operation->payload, value, arena, &bsi_payload_path);
        is_read = error == NULL;
    }
    bs_ticket ticket = is_read ? bsi_send(client, operation, value, request, arrived, expected) : 0;
    bsi_error_free(error);
    bs_free(value);
    bsi_buffer_free(&changed);
    return ticket;
}

void send_request(
    bs_client *client,
    const char *type,
    const struct buffer *payload,
    const char *id,
    bool is_typed,
    struct outcome *outcome) {
    *outcome = (struct outcome){0};
    const struct operation *operation = is_typed ? bsi_operation_of(type) : NULL;
    bs_request request = {.request_id = id};
    struct expected *expected = calloc(1, sizeof *expected);
    CHECK(expected != NULL);
    *expected = (struct expected){operation, outcome};
    bs_ticket ticket = 0;
    if (operation != NULL && operation->payload == NULL) {
        ticket = bsi_send(client, operation, NULL, &request, arrived, expected);
    } else if (operation != NULL) {
        ticket = send_typed(client, operation, payload, &request, expected);
    }
    if (ticket == 0) {
        static const struct result_type JSON = {KIND_JSON, false, NULL};
        struct buffer copy = {0};
        bsi_buffer_append(&copy, payload->data, payload->size);
        expected->operation = NULL;
        ticket = bsi_send_encoded(client, type, bsi_operation_of(type), &JSON, &copy, &request, arrived, expected);
    }
    if (ticket != 0) return;
    take_error(outcome, bs_last_error(client));
    free(expected);
}

void send_json(
    bs_client *client, const char *type, const char *payload, const char *id, bool is_typed, struct outcome *outcome) {
    struct buffer encoded = {0};
    bs_error *error = bsi_json_read(payload, strlen(payload), &encoded, &bsi_payload_path);
    *outcome = (struct outcome){0};
    if (error != NULL)
        take_error(outcome, error);
    else
        send_request(client, type, &encoded, id, is_typed, outcome);
    bsi_error_free(error);
    bsi_buffer_free(&encoded);
}

void await_outcome(bs_client *client, const struct outcome *outcome) {
    while (!outcome->is_done) (void)bs_poll(client, TIMEOUT_MS);
}
