#include "codec.h"

#include <string.h>

#include "json.h"

/** So many items of a list are made room for at first: each is known to be there only when it was read. */
enum { ITEMS_AT_FIRST = 16 };

/** What all arrays of structs look like. */
struct array {
    void *items;
    size_t count;
};

const struct operation *bsi_operation_of(const char *name) {
    for (const struct operation *const *each = bsi_operations; *each != NULL; each++) {
        if (strcmp((*each)->name, name) == 0) return *each;
    }
    return NULL;
}

size_t bsi_size_of(enum kind kind, const struct record *record) {
    switch (kind) {
    case KIND_NULL:
        return 0;
    case KIND_INTEGER:
        return sizeof(int64_t);
    case KIND_BOOLEAN:
        return sizeof(bool);
    case KIND_RECORD:
        return record->size;
    case KIND_POINTER:
        return sizeof(void *);
    default: // a pointer and a size or a count
        return sizeof(struct array);
    }
}

static const void *at_offset(const void *value, size_t offset) {
    return (const char *)value + offset;
}

static bool is_zero(const void *value, size_t size) {
    for (const char *at = value, *end = at + size; at < end; at++) {
        if (*at != 0) return false;
    }
    return true;
}

static bs_update state_of(const struct field *field, const void *value) {
    bs_update state;
    memcpy(&state, at_offset(value, field->flag_offset), sizeof state);
    return state;
}

/** Whether a field is set. */
static bool is_set(const struct field *field, const void *value) {
    const void *held = at_offset(value, field->offset);
    switch (field->presence) {
    case BY_POINTER:
        return *(const void *const *)held != NULL;
    case BY_FLAG:
        return *(const bool *)at_offset(value, field->flag_offset);
    case BY_STATE:
        return state_of(field, value) != BS_KEEP;
    default:
        return true;
    }
}

static bool fits_variant(const struct record *record, const struct field *field, const bs_text *tag) {
    if (record->tag == NULL || strcmp(field->name, record->tag) == 0) return true;
    return field->variant == NULL || bs_text_is(*tag, field->variant);
}

/** What cannot be sent about whether a field is set; NULL if nothing. */
static bs_error *check_presence(const struct field *field, const void *value, const struct path *path) {
    const void *held = at_offset(value, field->offset);
    bool is_missing = !is_set(field, value);
    if (field->presence == BY_POINTER && is_missing && field->required && !field->nullable) {
        return bsi_error(BS_INVALID, path, "it is required");
    }
    if (field->presence == BY_FLAG && is_missing && !is_zero(held, bsi_size_of(field->kind, field->record))) {
        return bsi_error(BS_INVALID, path, "it has a value, but its `has_…` is false");
    }
    if (field->presence != BY_STATE) return NULL;
    bs_update state = state_of(field, value);
    if (state != BS_SET && !is_zero(held, bsi_size_of(field->kind, field->record))) {
        return bsi_error(BS_INVALID, path, "it has a value, but its state is not BS_SET");
    }
    if (state == BS_CLEAR && !field->nullable) return bsi_error(BS_INVALID, path, "it cannot be cleared");
    bool is_valid = state == BS_KEEP || state == BS_SET || state == BS_CLEAR;
    return is_valid ? NULL : bsi_error(BS_INVALID, path, "its state is none of BS_KEEP, BS_SET and BS_CLEAR");
}

static bs_error *encode_text(struct buffer *buffer, const bs_text *text, const struct path *path) {
    if (text->data == NULL) return bsi_error(BS_INVALID, path, "the text is unset");
    if (!bsi_is_utf8(text->data, text->size)) return bsi_error(BS_INVALID, path, "the text is not UTF-8");
    bsi_pack_text(buffer, text->data, text->size);
    return NULL;
}

static bs_error *encode_integer(struct buffer *buffer, int64_t value, const struct path *path) {
    if (value > BS_INTEGER_MAX || value < -BS_INTEGER_MAX) {
        return bsi_error(BS_INVALID, path, "the integer is beyond 2^53 - 1");
    }
    bsi_pack_integer(buffer, value);
    return NULL;
}

static bs_error *encode_json(struct buffer *buffer, const bs_json *json, const struct path *path) {
    if (json->data == NULL) return bsi_error(BS_INVALID, path, "the JSON is unset");
    return bsi_json_read(json->data, json->size, buffer, path);
}

static bs_error *encode_object(struct buffer *buffer, const bs_json *json, const struct path *path) {
    size_t begun = buffer->size;
    bs_error *error = encode_json(buffer, json, path);
    if (error != NULL) return error;
    struct reader written = {buffer->data + begun, buffer->data + buffer->size};
    struct token head;
    if (bsi_read(&written, &head) && head.type == TOKEN_MAP) return NULL;
    return bsi_error(BS_INVALID, path, "expected an object");
}

static bs_error *encode_named_integers(struct buffer *buffer, const struct array *array, const struct path *path) {
    const bs_named_integer *items = array->items;
    bsi_pack_map(buffer, array->count);
    for (size_t at = 0; at < array->count; at++) {
        bs_error *error = encode_text(buffer, &items[at].name, path);
        if (error == NULL) error = encode_integer(buffer, items[at].value, path);
        if (error != NULL) return error;
    }
    return NULL;
}

static bs_error *
encode_batched_command(struct buffer *buffer, const bs_batched_command *command, const struct path *path) {
    const struct operation *operation = command->type == NULL ? NULL : bsi_operation_of(command->type);
    if (operation == NULL) {
        struct path type = bsi_path_name(path, "type", strlen("type"));
        return bsi_error(BS_INVALID, &type, "expected what a function such as bs_save_message_command returns");
    }
    bsi_pack_map(buffer, 2);
    bsi_pack_string(buffer, "type");
    bsi_pack_string(buffer, command->type);
    bsi_pack_string(buffer, "payload");
    struct path inner = bsi_path_name(path, "payload", strlen("payload"));
    return bsi_encode_record(buffer, operation->payload, command->payload, &inner);
}

static bs_error *encode_array(
    struct buffer *buffer,
    enum kind kind,
    const struct record *record,
    const struct array *array,
    const struct path *path) {
    if (array->items == NULL && array->count > 0) return bsi_error(BS_INVALID, path, "the list has no items");
    if (kind == KIND_NAMED_INTEGERS) return encode_named_integers(buffer, array, path);
    bsi_pack_array(buffer, array->count);
    for (size_t at = 0; at < array->count; at++) {
        struct path inner = bsi_path_index(path, at);
        bs_error *error;
        if (kind == KIND_TEXTS)
            error = encode_text(buffer, &((const bs_text *)array->items)[at], &inner);
        else if (kind == KIND_JSONS)
            error = encode_json(buffer, &((const bs_json *)array->items)[at], &inner);
        else if (kind == KIND_BATCHED_COMMANDS) {
            error = encode_batched_command(buffer, &((const bs_batched_command *)array->items)[at], &inner);
        } else {
            error = bsi_encode_record(buffer, record, (const char *)array->items + at * record->size, &inner);
        }
        if (error != NULL) return error;
    }
    return NULL;
}

static bs_error *
encode(struct buffer *buffer, enum kind kind, const struct record *record, const void *held, const struct path *path) {
    switch (kind) {
    case KIND_NULL:
        bsi_pack_nil(buffer);
        return NULL;
    case KIND_TEXT:
        return encode_text(buffer, held, path);
    case KIND_INTEGER:
        return encode_integer(buffer, *(const int64_t *)held, path);
    case KIND_BOOLEAN:
        bsi_pack_boolean(buffer, *(const bool *)held);
        return NULL;
    case KIND_BYTES:
        bsi_pack_bytes(buffer, ((const bs_bytes *)held)->data, ((const bs_bytes *)held)->size);
        return NULL;
    case KIND_JSON:
        return encode_json(buffer, held, path);
    case KIND_OBJECT:
        return encode_object(buffer, held, path);
    case KIND_RECORD:
        return bsi_encode_record(buffer, record, held, path);
    case KIND_POINTER:
        return bsi_encode_record(buffer, record, *(const void *const *)held, path);
    default:
        return encode_array(buffer, kind, record, held, path);
    }
}

static bs_error *encode_field(
    struct buffer *buffer, const struct field *field, const void *value, const struct path *path, size_t *count) {
    struct path inner = bsi_path_name(path, field->name, strlen(field->name));
    bs_error *error = check_presence(field, value, &inner);
    bool is_null = !is_set(field, value) || (field->presence == BY_STATE && state_of(field, value) == BS_CLEAR);
    bool is_told = !is_null || field->presence == BY_STATE || field->required;
    if (error != NULL || !is_told || (field->presence == BY_STATE && state_of(field, value) == BS_KEEP)) return error;
    (*count)++;
    bsi_pack_string(buffer, field->name);
    if (!is_null) return encode(buffer, field->kind, field->record, at_offset(value, field->offset), &inner);
    bsi_pack_nil(buffer);
    return NULL;
}

/** Append the fields of a later level, which were kept as an object. */
static bs_error *encode_others(struct buffer *buffer, const bs_json *others, const struct path *path, size_t *count) {
    struct buffer msgpack = {0};
    struct token head = {0};
    bs_error *error = encode_object(&msgpack, others, path);
    struct reader reader = {msgpack.data, msgpack.data + msgpack.size};
    if (error == NULL && bsi_read(&reader, &head)) {
        bsi_buffer_append(buffer, reader.at, (size_t)(reader.end - reader.at));
        *count += head.size;
    }
    bsi_buffer_free(&msgpack);
    return error;
}

bs_error *
bsi_encode_record(struct buffer *buffer, const struct record *record, const void *value, const struct path *path) {
    size_t head = bsi_pack_begin(buffer), count = 0;
    if (record != NULL && value == NULL) {
        for (size_t at = 0; at < record->count; at++) {
            if (record->fields[at].required) return bsi_error(BS_INVALID, path, "it is NULL, and has required fields");
        }
    } else if (record != NULL) {
        const bs_text *tag = record->tag == NULL ? NULL : at_offset(value, record->tag_offset);
        for (size_t at = 0; at < record->count; at++) {
            if (!fits_variant(record, &record->fields[at], tag)) continue;
            bs_error *error = encode_field(buffer, &record->fields[at], value, path, &count);
            if (error != NULL) return error;
        }
        const bs_json *others = record->keeps_others ? at_offset(value, record->others_offset) : NULL;
        bs_error *error = others && others->data ? encode_others(buffer, others, path, &count) : NULL;
        if (error != NULL) return error;
    }
    bsi_pack_end_map(buffer, head, count);
    return buffer->failed ? bsi_no_memory : NULL;
}

bs_error *
bsi_encode_value(struct buffer *buffer, const struct result_type *type, const void *value, const struct path *path) {
    if (value == NULL)
        bsi_pack_nil(buffer);
    else
        return encode(buffer, type->kind, type->record, value, path);
    return NULL;
}

static bs_error *decode(
    struct reader *reader,
    enum kind kind,
    const struct record *record,
    void *held,
    struct arena *arena,
    const struct path *path);

static bs_error *not_of_type(const struct path *path) {
    return bsi_error(BS_INTERNAL, path, "the daemon's reply has another type than is declared");
}

static bs_error *decode_json(struct reader *reader, bs_json *held, struct arena *arena, const struct path *path) {
    struct buffer json = {0};
    bool is_whole = bsi_json_write(reader, &json);
    if (is_whole) *held = (bs_json){bsi_arena_copy(arena, json.data, json.size), json.size};
    bool has_memory = !json.failed && (!is_whole || held->data != NULL);
    bsi_buffer_free(&json);
    if (!has_memory) return bsi_no_memory;
    return is_whole ? NULL : not_of_type(path);
}

static bs_error *decode_data(const struct token *token, struct array *held, struct arena *arena) {
    held->items = bsi_arena_copy(arena, token->data, token->size);
    held->count = token->size;
    return held->items == NULL ? bsi_no_memory : NULL;
}

static bs_error *
decode_text(const struct token *token, struct array *held, struct arena *arena, const struct path *path) {
    if (token->type != TOKEN_TEXT) return not_of_type(path);
    if (bsi_is_utf8((const char *)token->data, token->size)) return decode_data(token, held, arena);
    return bsi_error(BS_INTERNAL, path, "the daemon's reply has text that is not UTF-8");
}

static bs_error *decode_number(const struct token *token, int64_t *held, const struct path *path) {
    *held = token->integer;
    if (token->type == TOKEN_INTEGER) return NULL;
    // Some encoders write integers as floats.
    double bound = (double)BS_INTEGER_MAX;
    if (token->type != TOKEN_FLOAT || !(token->number >= -bound && token->number <= bound)) return not_of_type(path);
    *held = (int64_t)token->number;
    bool is_whole = (double)*held >= token->number && (double)*held <= token->number;
    return is_whole ? NULL : not_of_type(path);
}

static bs_error *
decode_named_integer(struct reader *reader, bs_named_integer *held, struct arena *arena, const struct path *path) {
    bs_error *error = decode(reader, KIND_TEXT, NULL, &held->name, arena, path);
    return error != NULL ? error : decode(reader, KIND_INTEGER, NULL, &held->value, arena, path);
}

static size_t item_size(enum kind kind, const struct record *record) {
    if (kind == KIND_NAMED_INTEGERS) return sizeof(bs_named_integer);
    return kind == KIND_RECORDS ? record->size : sizeof(struct array);
}

/** Room for one more item; NULL if there is no memory. */
static void *next_item(struct array *array, size_t size, size_t *room, struct arena *arena) {
    if (array->count == *room) {
        *room = *room == 0 ? ITEMS_AT_FIRST : 2 * *room;
        void *items = bsi_arena_take(arena, *room * size);
        if (items == NULL) return NULL;
        if (array->count > 0) memcpy(items, array->items, array->count * size);
        array->items = items;
    }
    return (char *)array->items + size * array->count++;
}

static bs_error *decode_array(
    struct reader *reader,
    size_t count,
    enum kind kind,
    const struct record *record,
    struct array *held,
    struct arena *arena,
    const struct path *path) {
    static const enum kind ITEMS[] = {[KIND_TEXTS] = KIND_TEXT, [KIND_JSONS] = KIND_JSON, [KIND_RECORDS] = KIND_RECORD};
    size_t size = item_size(kind, record), room = 0;
    for (size_t at = 0; at < count; at++) {
        struct path inner = bsi_path_index(path, at);
        void *item = next_item(held, size, &room, arena);
        if (item == NULL) return bsi_no_memory;
        bs_error *error = kind == KIND_NAMED_INTEGERS ? decode_named_integer(reader, item, arena, &inner)
                                                      : decode(reader, ITEMS[kind], record, item, arena, &inner);
        if (error != NULL) return error;
    }
    return NULL;
}

static bs_error *decode_pointer(
    struct reader *reader, const struct record *record, void **held, struct arena *arena, const struct path *path) {
    *held = bsi_arena_take(arena, record->size);
    return *held == NULL ? bsi_no_memory : bsi_decode_record(reader, record, *held, arena, path);
}

static bs_error *decode(
    struct reader *reader,
    enum kind kind,
    const struct record *record,
    void *held,
    struct arena *arena,
    const struct path *path) {
    if (kind == KIND_RECORD) return bsi_decode_record(reader, record, held, arena, path);
    if (kind == KIND_POINTER) return decode_pointer(reader, record, held, arena, path);
    if (kind == KIND_JSON) return decode_json(reader, held, arena, path);
    struct reader begun = *reader;
    struct token token;
    if (!bsi_read(reader, &token)) return not_of_type(path);
    switch (kind) {
    case KIND_NULL:
        return token.type == TOKEN_NIL ? NULL : not_of_type(path);
    case KIND_TEXT:
        return decode_text(&token, held, arena, path);
    case KIND_BYTES:
        return token.type == TOKEN_BYTES ? decode_data(&token, held, arena) : not_of_type(path);
    case KIND_INTEGER:
        return decode_number(&token, held, path);
    case KIND_BOOLEAN:
        *(bool *)held = token.boolean;
        return token.type == TOKEN_BOOLEAN ? NULL : not_of_type(path);
    case KIND_OBJECT:
        *reader = begun;
        return token.type == TOKEN_MAP ? decode_json(reader, held, arena, path) : not_of_type(path);
    default: {
        enum token_type expected = kind == KIND_NAMED_INTEGERS ? TOKEN_MAP : TOKEN_ARRAY;
        if (token.type != expected || kind == KIND_BATCHED_COMMANDS) return not_of_type(path);
        return decode_array(reader, token.size, kind, record, held, arena, path);
    }
    }
}

/** The field of a name; NULL if this level has none. */
static const struct field *field_of(const struct record *record, const struct token *name, const bs_text *tag) {
    for (size_t at = 0; at < record->count; at++) {
        const struct field *field = &record->fields[at];
        if (bsi_token_is(name, field->name) && fits_variant(record, field, tag)) return field;
    }
    return NULL;
}

static void mark_set(const struct field *field, void *value, bs_update state) {
    char *flag = (char *)value + field->flag_offset;
    if (field->presence == BY_FLAG) *(bool *)flag = state == BS_SET;
    if (field->presence == BY_STATE) memcpy(flag, &state, sizeof state);
}

static bs_error *decode_field(
    struct reader *reader, const struct field *field, void *value, struct arena *arena, const struct path *path) {
    struct path inner = bsi_path_name(path, field->name, strlen(field->name));
    struct reader begun = *reader;
    struct token token;
    if (!bsi_read(&begun, &token)) return not_of_type(&inner);
    void *held = (char *)value + field->offset;
    memset(held, 0, bsi_size_of(field->kind, field->record)); // of a name that comes twice the last value counts
    bool may_be_null = field->nullable || !field->required;
    if (token.type == TOKEN_NIL && may_be_null && field->kind != KIND_JSON) {
        *reader = begun;
        mark_set(field, value, BS_CLEAR);
        return NULL;
    }
    mark_set(field, value, BS_SET);
    return decode(reader, field->kind, field->record, held, arena, &inner);
}

/** Keep a field of a later level: append it to an object that is not closed yet. */
static bool keep_other(struct reader *reader, const struct token *name, struct buffer *others) {
    bsi_buffer_text(others, others->size == 0 ? "{" : ",");
    if (!bsi_json_write_text(others, (const char *)name->data, name->size)) return false;
    bsi_buffer_text(others, ":");
    return bsi_json_write(reader, others);
}

/** A reply without a field that it must have is none; `found` has a bit for each field. */
static bs_error *check_required(const struct record *record, uint64_t found, const struct path *path) {
    for (size_t at = 0; at < record->count; at++) {
        const char *name = record->fields[at].name;
        struct path inner = bsi_path_name(path, name, strlen(name));
        bool is_missing = record->fields[at].required && !(found >> at & 1);
        if (is_missing) return bsi_error(BS_INTERNAL, &inner, "the daemon's reply does not have it");
    }
    return NULL;
}

static bs_error *decode_members(
    struct reader *reader,
    size_t count,
    const struct record *record,
    void *value,
    struct arena *arena,
    struct buffer *others,
    const struct path *path) {
    const bs_text *tag = record->tag == NULL ? NULL : at_offset(value, record->tag_offset);
    struct token name;
    uint64_t found = 0;
    for (size_t at = 0; at < count; at++) {
        if (!bsi_read(reader, &name) || name.type != TOKEN_TEXT) return not_of_type(path);
        const struct field *field = field_of(record, &name, tag);
        bs_error *error = NULL;
        bool is_whole = true;
        if (field != NULL) {
            found |= UINT64_C(1) << (field - record->fields);
            error = decode_field(reader, field, value, arena, path);
        } else {
            is_whole = record->keeps_others ? keep_other(reader, &name, others) : bsi_skip(reader);
        }
        if (error != NULL || !is_whole) return error != NULL ? error : not_of_type(path);
    }
    return check_required(record, found, path);
}

/** Read the tag before all else, because the type of another field depends on it. */
static bs_error *
decode_tag(struct reader map, const struct record *record, void *value, struct arena *arena, const struct path *path) {
    struct reader tag;
    if (record->tag == NULL) return NULL;
    if (!bsi_find(map, record->tag, &tag)) return not_of_type(path);
    return decode(&tag, KIND_TEXT, NULL, (char *)value + record->tag_offset, arena, path);
}

bs_error *bsi_decode_record(
    struct reader *reader, const struct record *record, void *value, struct arena *arena, const struct path *path) {
    struct token head;
    bs_error *error = decode_tag(*reader, record, value, arena, path);
    if (error != NULL) return error;
    if (!bsi_read(reader, &head) || head.type != TOKEN_MAP) return not_of_type(path);
    struct buffer others = {0};
    error = decode_members(reader, head.size, record, value, arena, &others, path);
    if (error == NULL && others.size > 0) {
        bsi_buffer_text(&others, "}");
        const char *copy = others.failed ? NULL : bsi_arena_copy(arena, others.data, others.size);
        bs_json kept = {copy, others.size};
        memcpy((char *)value + record->others_offset, &kept, sizeof kept);
        if (copy == NULL) error = bsi_no_memory;
    }
    if (others.failed) error = bsi_no_memory;
    bsi_buffer_free(&others);
    return error;
}

bs_error *bsi_decode_result(struct reader *reader, const struct result_type *type, void **result) {
    *result = NULL;
    struct path path = bsi_path_name(NULL, "$.result", strlen("$.result"));
    struct reader begun = *reader;
    struct token token;
    if (!bsi_read(&begun, &token)) return not_of_type(&path);
    if (token.type == TOKEN_NIL && (type->nullable || type->kind == KIND_NULL)) {
        *reader = begun;
        return NULL;
    }
    if (type->kind == KIND_NULL) return not_of_type(&path);
    struct arena *arena;
    void *root = bsi_arena_new(bsi_size_of(type->kind, type->record), &arena);
    if (root == NULL) return bsi_no_memory;
    bs_error *error = decode(reader, type->kind, type->record, root, arena, &path);
    if (error == NULL)
        *result = root;
    else
        bsi_arena_free(root);
    return error;
}
