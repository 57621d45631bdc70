#include "errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

static bs_error no_memory = {
    .code = BS_NO_MEMORY,
    .name = "no-memory",
    .message = "there is no memory",
    .fault = BS_FAULT_CALLER,
};
bs_error *const bsi_no_memory = &no_memory;

const char *bs_code_name(bs_code code) {
    return code >= BS_OK && code <= BS_OTHER ? bsi_codes[code].name : "unknown";
}

/** Frees what is half made. */
static bs_error *given_up(bs_error *error) {
    bsi_arena_free(error);
    return bsi_no_memory;
}

static bs_error *make(bs_code code, const struct path *path, const char *format, va_list arguments) {
    struct arena *arena;
    bs_error *error = bsi_arena_new(sizeof *error, &arena);
    if (error == NULL) return bsi_no_memory;
    *error = (bs_error){.code = code, .name = bsi_codes[code].name, .fault = bsi_codes[code].fault};
    struct buffer message = {0};
    if (path != NULL) {
        bsi_path_write(path, &message);
        error->path = bsi_arena_copy(arena, message.data, message.size);
        bsi_buffer_text(&message, ": ");
    }
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, arguments);
    uint8_t *end = size < 0 ? NULL : bsi_buffer_extend(&message, (size_t)size + 1);
    if (end != NULL) {
        vsnprintf((char *)end, (size_t)size + 1, format, again);
        error->message = bsi_arena_copy(arena, message.data, message.size);
    }
    va_end(again);
    bsi_buffer_free(&message);
    bool is_whole = error->message != NULL && (path == NULL || error->path != NULL);
    return is_whole ? error : given_up(error);
}

bs_error *bsi_error(bs_code code, const struct path *path, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    bs_error *error = make(code, path, format, arguments);
    va_end(arguments);
    return error;
}

bs_error *bsi_unavailable(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    bs_error *error = make(BS_UNAVAILABLE, NULL, format, arguments);
    va_end(arguments);
    if (error != bsi_no_memory) error->retryable = true;
    return error;
}

static bs_code code_of(const struct token *name) {
    for (bs_code code = BS_OK + 1; code < BS_OTHER; code++) {
        if (bsi_token_is(name, bsi_codes[code].name)) return code;
    }
    return BS_OTHER;
}

/** The text under a name, with a NUL after it; unset if there is none, or no memory. */
static bs_text text_in(struct reader map, const char *name, struct arena *arena) {
    struct reader found;
    struct token token;
    if (!bsi_find(map, name, &found) || !bsi_read(&found, &token) || token.type != TOKEN_TEXT) return (bs_text){0};
    const char *copy = bsi_arena_copy(arena, token.data, token.size);
    return copy == NULL ? (bs_text){0} : (bs_text){copy, token.size};
}

/** Read the list of the commands of a batch that failed; false if there is no memory. */
static bool read_failures(struct reader details, bs_error *error, struct arena *arena) {
    struct reader list, index;
    struct token head, number;
    if (!bsi_find(details, "failures", &list) || !bsi_read(&list, &head) || head.type != TOKEN_ARRAY) return true;
    if (head.size > BS_BATCH_COMMANDS_MAX) return true;
    bs_failure *failures = bsi_arena_take(arena, head.size * sizeof *failures);
    if (failures == NULL) return false;
    error->failures.items = failures;
    error->failures.count = head.size;
    for (size_t at = 0; at < head.size; at++) {
        failures[at].index = -1;
        if (bsi_find(list, "index", &index) && bsi_read(&index, &number) && number.type == TOKEN_INTEGER) {
            failures[at].index = number.integer;
        }
        failures[at].code = text_in(list, "code", arena);
        failures[at].message = text_in(list, "message", arena);
        failures[at].path = text_in(list, "path", arena);
        if (!bsi_skip(&list)) return true;
    }
    return true;
}

static bool read_details(struct reader details, bs_error *error, struct arena *arena) {
    struct token head;
    struct reader begun = details;
    if (!bsi_read(&begun, &head) || head.type != TOKEN_MAP) return true;
    struct buffer json = {0};
    struct reader whole = details;
    if (bsi_json_write(&whole, &json)) {
        error->details = (bs_json){bsi_arena_copy(arena, json.data, json.size), json.size};
    }
    bool has_memory = !json.failed && (json.size == 0 || error->details.data != NULL);
    bsi_buffer_free(&json);
    error->path = text_in(details, "path", arena).data;
    return has_memory && read_failures(details, error, arena);
}

bs_error *bsi_error_from(struct reader map) {
    struct arena *arena;
    bs_error *error = bsi_arena_new(sizeof *error, &arena);
    if (error == NULL) return bsi_no_memory;
    struct reader found;
    struct token code = {.type = TOKEN_TEXT, .data = (const uint8_t *)"internal", .size = strlen("internal")};
    struct token token;
    if (bsi_find(map, "code", &found) && bsi_read(&found, &token) && token.type == TOKEN_TEXT) code = token;
    error->code = code_of(&code);
    error->name = bsi_arena_copy(arena, code.data, code.size);
    error->message = text_in(map, "message", arena).data;
    if (error->message == NULL) error->message = error->name;
    error->fault = bsi_codes[error->code].fault;
    if (error->code == BS_OTHER && bsi_find(map, "fault", &found) && bsi_read(&found, &token)) {
        error->fault = bsi_token_is(&token, "caller") ? BS_FAULT_CALLER : BS_FAULT_DAEMON;
    }
    if (bsi_find(map, "retryable", &found) && bsi_read(&found, &token)) {
        error->retryable = token.type == TOKEN_BOOLEAN && token.boolean;
    }
    if (error->name == NULL || (bsi_find(map, "details", &found) && !read_details(found, error, arena))) {
        return given_up(error);
    }
    return error;
}

/** Copy a string that may be NULL; false if there is no memory. */
static bool copy_string(const char **target, const char *source, struct arena *arena) {
    *target = source == NULL ? NULL : bsi_arena_copy(arena, source, strlen(source));
    return source == NULL || *target != NULL;
}

bs_error *bsi_error_copy(const bs_error *error) {
    struct arena *arena;
    bs_error *copy = error == bsi_no_memory ? NULL : bsi_arena_new(sizeof *copy, &arena);
    if (copy == NULL) return bsi_no_memory;
    *copy = (bs_error){.code = error->code, .fault = error->fault, .retryable = error->retryable};
    bool is_whole = copy_string(&copy->name, error->name, arena) && copy_string(&copy->path, error->path, arena) &&
                    copy_string(&copy->message, error->message, arena) &&
                    copy_string(&copy->cursor, error->cursor, arena);
    return is_whole ? copy : given_up(copy);
}

void bsi_error_free(const bs_error *error) {
    if (error != bsi_no_memory) bsi_arena_free(error);
}
