/**
 * This client's runner of the conformance vectors: one JSON line for each vector.
 *
 *     vectors DIRECTORY
 */

#include <ctype.h>
#include <stdarg.h>

#include "runner.h"

/** Where vectors stand, the keys that they may have, and what plays one. */
static const struct list {
    const char *set;
    const char *name;
    const char *keys;
    player play;
} LISTS[] = {
    {"codec", "requests", "name needs type json msgpack canonical error", play_request},
    {"codec", "replies", "name needs type json msgpack result kept error invalid", play_reply},
    {"canonical", "vectors", "name needs type json canonical salt digest", play_canonical},
    {"hello", "vectors", "name needs token nonce endpoints proof", play_hello},
    {"refusals", "vectors", "name needs before json hex expand id error", play_refusal},
    {"zmtp", "vectors", "name needs connections", play_zmtp},
    {"retry", "table", "name needs state event to outcome", play_row},
    {"retry", "sequences", "name needs events", play_sequence},
    {"scenarios", "vectors", "name needs steps", play_scenario},
};

char *told(const char *text, ...) {
    char *written;
    va_list arguments;
    va_start(arguments, text);
    int size = vasprintf(&written, text, arguments);
    va_end(arguments);
    CHECK(size >= 0);
    return written;
}

static char *dumped(const json_t *value) {
    return value == NULL ? told("nothing") : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
}

char *difference(const char *what, const json_t *expected, const json_t *actual) {
    bool are_none = expected == NULL && actual == NULL;
    if (are_none || (expected != NULL && actual != NULL && json_equal(expected, actual))) return NULL;
    char *wanted = dumped(expected), *found = dumped(actual),
         *why = told("%s: expected %s, got %s", what, wanted, found);
    free(wanted);
    free(found);
    return why;
}

char *unknown_key(json_t *object, const char *known) {
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        const char *found = strstr(known, name);
        bool is_known = false;
        for (; found != NULL && !is_known; found = strstr(found + 1, name)) {
            char after = found[strlen(name)];
            is_known = (found == known || found[-1] == ' ') && (after == ' ' || after == '\0');
        }
        if (!is_known) return told("unknown key %s", name);
    }
    return NULL;
}

const char *text_of(json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

void append_hex(struct buffer *buffer, const char *hex) {
    for (; *hex != '\0'; hex += 2) {
        char digits[3] = {hex[0], hex[1], '\0'};
        CHECK(isxdigit((unsigned char)hex[0]) && isxdigit((unsigned char)hex[1]));
        uint8_t byte = (uint8_t)strtol(digits, NULL, 16);
        bsi_buffer_append(buffer, &byte, 1);
    }
}

struct daemon *the_daemon(void) {
    static struct daemon daemon;
    if (daemon.program != NULL) return &daemon;
    const char *serve = getenv("CONFORMANCE_SERVE");
    daemon.data_dir = temporary_directory();
    daemon.program = program_start(format(
        "%s --data-dir %s --exit-with-parent 2>/dev/null", serve != NULL ? serve : "backscroll serve",
        daemon.data_dir));
    CHECK_HAS(program_line(daemon.program), "ready");
    return &daemon;
}

bs_client *client_in(const char *scope) {
    static json_t *clients;
    if (clients == NULL) clients = json_object();
    bs_client *client = (bs_client *)(uintptr_t)json_integer_value(json_object_get(clients, scope));
    if (client != NULL) return client;
    const char *endpoint = daemon_endpoint(the_daemon());
    client = client_with((bs_client_options){.endpoint = endpoint, .scope = scope, .timeout_ms = TIMEOUT_MS});
    json_object_set_new(clients, scope, json_integer((json_int_t)(uintptr_t)client));
    return client;
}

static void play(const struct list *list, json_t *vector, json_t *file) {
    char *why = unknown_key(vector, list->keys);
    if (why == NULL) why = list->play(vector, file);
    json_t *result = json_pack(
        "{s:s, s:s, s:b, s:s}", "set", list->set, "name", text_of(vector, "name"), "ok", why == NULL, "why",
        why ? why : "");
    char *line = json_dumps(result, JSON_COMPACT);
    puts(line);
    fflush(stdout);
    free(line);
    free(why);
    json_decref(result);
}

int main(int argc, char **argv) {
    for (size_t at = 0; at < sizeof LISTS / sizeof *LISTS; at++) {
        json_error_t error;
        const char *path = format("%s/%s.json", argc > 1 ? argv[1] : ".", LISTS[at].set);
        json_t *file = json_load_file(path, JSON_ALLOW_NUL, &error), *vector;
        if (file == NULL) fail(__FILE__, __LINE__, "%s: %s", path, error.text);
        size_t index;
        json_array_foreach(json_object_get(file, LISTS[at].name), index, vector) play(&LISTS[at], vector, file);
        json_decref(file);
    }
    clean_up();
    return 0;
}
