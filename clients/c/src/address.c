#include "address.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"

static const char ENDPOINT_FILE[] = "endpoint.json";
static const char IPC[] = "ipc://", TCP[] = "tcp://", CURVE[] = "curve://";
static const char TOKEN_VARIABLE[] = "BACKSCROLL_TOKEN";
static const char KEYS_VARIABLE[] = "BACKSCROLL_KEYS";
/** So many bytes of a file are read: what a daemon wrote has fewer. */
enum { FILE_BYTES_MAX = 64 * 1024, PORT_MAX = 65535, RUNTIME_DIGITS = 16, PASSWD_BYTES = 16 * 1024 };
/** So much of an error code is quoted: whoever sent it may be anybody. */
enum { CODE_CHARS_MAX = 64 };

bool bsi_begins_with(const char *text, const char *beginning) {
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

char *bsi_joined(const char *before, const char *between, const char *after) {
    size_t size = strlen(before) + strlen(between) + strlen(after) + 1;
    char *joined = malloc(size);
    if (joined != NULL) snprintf(joined, size, "%s%s%s", before, between, after);
    return joined;
}

static char *copy_of(const bs_text *text) {
    char *copy = malloc(text->size + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, text->data, text->size);
    copy[text->size] = '\0';
    return copy;
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value == NULL || *value == '\0' ? NULL : value;
}

void bsi_address_clear(struct address *address) {
    free(address->endpoint);
    free(address->token);
    sodium_memzero(address, sizeof *address);
}

/** The port at the end of an endpoint, or what stands there. */
static const char *port_of(const char *endpoint) {
    const char *colon = strrchr(endpoint, ':');
    return colon == NULL ? "" : colon + 1;
}

static bool has_valid_port(const char *endpoint) {
    const char *port = port_of(endpoint);
    size_t digits = strspn(port, "0123456789");
    bool is_number = digits > 0 && digits <= 5 && port[digits] == '\0';
    return is_number && atoi(port) >= 1 && atoi(port) <= PORT_MAX;
}

bs_error *bsi_endpoint_check(const char *endpoint) {
    if (bsi_begins_with(endpoint, IPC) && endpoint[strlen(IPC)] != '\0') return NULL;
    const char *host = bsi_begins_with(endpoint, TCP)     ? endpoint + strlen(TCP)
                       : bsi_begins_with(endpoint, CURVE) ? endpoint + strlen(CURVE)
                                                          : NULL;
    if (host != NULL && *host != ':' && has_valid_port(endpoint)) return NULL;
    return bsi_error(
        BS_INVALID, NULL, "cannot connect to \"%s\": an address is such as tcp://127.0.0.1:5555 or ipc:///PATH",
        endpoint);
}

/* What a ready daemon wrote. */

/** Read a file of JSON as MessagePack; false if it is missing, being replaced, or something else. */
static bool read_json(const char *path, struct buffer *msgpack) {
    FILE *file = fopen(path, "rbe");
    if (file == NULL) return false;
    char *text = malloc(FILE_BYTES_MAX);
    size_t size = text == NULL ? 0 : fread(text, 1, FILE_BYTES_MAX, file);
    fclose(file);
    struct path whole = bsi_path_name(NULL, "$", 1);
    bs_error *error = text == NULL ? bsi_no_memory : bsi_json_read(text, size, msgpack, &whole);
    free(text);
    bool is_read = error == NULL;
    bsi_error_free(error);
    return is_read;
}

/** A text in a map; unset if there is none. */
static bs_text text_in(const struct buffer *map, const char *name) {
    struct reader found;
    struct token token;
    if (!bsi_find((struct reader){map->data, map->data + map->size}, name, &found)) return (bs_text){0};
    if (!bsi_read(&found, &token) || token.type != TOKEN_TEXT) return (bs_text){0};
    return (bs_text){(const char *)token.data, token.size};
}

/** The list of endpoints, and how many there are; false if there is none. */
static bool endpoints_in(struct reader map, struct reader *list, size_t *count) {
    struct token head;
    if (!bsi_find(map, "endpoints", list) || !bsi_read(list, &head) || head.type != TOKEN_ARRAY) return false;
    *count = head.size;
    return true;
}

/** The next of the endpoints; unset if it is no text. */
static bs_text next_endpoint(struct reader *list) {
    struct token token;
    struct reader begun = *list;
    if (!bsi_skip(list) || !bsi_read(&begun, &token) || token.type != TOKEN_TEXT) return (bs_text){0};
    return (bs_text){(const char *)token.data, token.size};
}

static bool read_announced_in(const char *directory, struct buffer *announced) {
    char *path = bsi_joined(directory, "/", ENDPOINT_FILE);
    struct reader list;
    size_t count;
    bool is_read = path != NULL && read_json(path, announced) &&
                   endpoints_in((struct reader){announced->data, announced->data + announced->size}, &list, &count);
    free(path);
    if (!is_read) bsi_buffer_free(announced);
    return is_read;
}

static char *absolute(const char *directory) {
    char *real = realpath(directory, NULL);
    if (real != NULL || *directory == '/') return real != NULL ? real : bsi_joined(directory, "", "");
    char *here = realpath(".", NULL);
    char *path = here == NULL ? NULL : bsi_joined(here, "/", directory); // it does not exist yet
    free(here);
    return path;
}

/** Whether a directory belongs to this user: others can make one of any name below that for temporary files. */
static bool is_own(const char *directory) {
    struct stat found;
    return lstat(directory, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == getuid();
}

/** Read what a daemon wrote that cannot write into its data directory. */
static bool read_announced_elsewhere(const char *directory, struct buffer *announced) {
    const char *runtime = variable("XDG_RUNTIME_DIR"), *temporary = variable("TMPDIR");
    const char *place = runtime != NULL ? runtime : temporary != NULL ? temporary : "/tmp";
    char user[64], hash[1 + DIGEST_CHARS + 1] = "/";
    snprintf(user, sizeof user, "/backscroll-%lu", (unsigned long)getuid());
    char *real = absolute(directory);
    if (real == NULL) return false;
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, (const uint8_t *)real, strlen(real));
    sodium_bin2hex(hash + 1, DIGEST_CHARS + 1, digest, sizeof digest);
    hash[1 + RUNTIME_DIGITS] = '\0';
    free(real);
    char *own = bsi_joined(place, user, ""), *own_place = bsi_joined(place, user, hash);
    bool is_read = own != NULL && own_place != NULL && is_own(own) && read_announced_in(own_place, announced);
    free(own);
    free(own_place);
    return is_read;
}

static void read_announced(const char *directory, struct buffer *announced) {
    if (!read_announced_elsewhere(directory, announced)) (void)read_announced_in(directory, announced);
}

/* Which of it to use. */

/** The user's home directory in new memory; NULL if there is none, as in a container that knows no users. */
static char *home(void) {
    const char *named = variable("HOME");
    if (named != NULL) return bsi_joined(named, "", "");
    struct passwd user, *found = NULL;
    char *strings = malloc(PASSWD_BYTES);
    if (strings != NULL) getpwuid_r(getuid(), &user, strings, PASSWD_BYTES, &found);
    char *directory = found == NULL ? NULL : bsi_joined(found->pw_dir, "", "");
    free(strings);
    return directory;
}

/** The directory for the data of this user, or the one named by `BACKSCROLL_DATA_DIR`. */
static bs_error *default_data_dir(char **directory) {
    const char *named = variable("BACKSCROLL_DATA_DIR"), *xdg = variable("XDG_DATA_HOME");
    bool is_at_home = named != NULL && *named == '~' && (named[1] == '/' || named[1] == '\0');
    if (named != NULL && !is_at_home)
        *directory = bsi_joined(named, "", "");
    else if (named == NULL && xdg != NULL)
        *directory = bsi_joined(xdg, "/backscroll", "");
    else {
        char *own = home();
        if (own == NULL) {
            return bsi_error(
                BS_INVALID, NULL,
                "this user has no home directory: name a data directory, as `data_dir` or in BACKSCROLL_DATA_DIR");
        }
        *directory = is_at_home ? bsi_joined(own, named + 1, "") : bsi_joined(own, "/.local/share/backscroll", "");
        free(own);
    }
    return *directory == NULL ? bsi_no_memory : NULL;
}

/** An endpoint with the same name for all loopback hosts, which differ only in the port; NULL if there is no memory. */
static char *with_one_loopback(const bs_text *endpoint) {
    static const char *const HOSTS[] = {"127.0.0.1", "[::1]", "localhost"};
    char *copy = copy_of(endpoint);
    char *host = copy == NULL ? NULL : strstr(copy, "://");
    char *colon = host == NULL ? NULL : strrchr(host + 3, ':');
    if (colon == NULL) return copy;
    host += 3;
    for (size_t at = 0; at < sizeof HOSTS / sizeof *HOSTS; at++) {
        size_t size = strlen(HOSTS[at]);
        if (size != (size_t)(colon - host) || memcmp(host, HOSTS[at], size) != 0) continue;
        *host = '\0';
        char *same = bsi_joined(copy, "localhost:", colon + 1);
        free(copy);
        return same;
    }
    return copy;
}

/** Whether the daemon says that it is bound to this endpoint. */
static bool lists(const struct buffer *announced, const char *endpoint) {
    struct reader list;
    size_t count;
    bs_text wanted_text = {endpoint, strlen(endpoint)};
    char *wanted = with_one_loopback(&wanted_text);
    bool is_listed = false;
    if (!endpoints_in((struct reader){announced->data, announced->data + announced->size}, &list, &count)) count = 0;
    for (size_t at = 0; at < count && wanted != NULL; at++) {
        bs_text each = next_endpoint(&list);
        char *listed = each.data == NULL ? NULL : with_one_loopback(&each);
        if (listed != NULL && strcmp(listed, wanted) == 0) is_listed = true;
        free(listed);
    }
    free(wanted);
    return is_listed;
}

/** The file of the keys for CURVE; NULL if there is none. */
static const char *keys_file(const struct location *location) {
    return location->keys_file != NULL ? location->keys_file : variable(KEYS_VARIABLE);
}

/** The first endpoint that this client can use, or else one that it cannot, in new memory. */
static bs_error *first_endpoint(
    const struct location *location, const struct buffer *announced, const char *directory, char **endpoint) {
    struct reader list;
    size_t count;
    bs_text chosen = {0};
    if (!endpoints_in((struct reader){announced->data, announced->data + announced->size}, &list, &count)) count = 0;
    for (size_t at = 0; at < count; at++) {
        bs_text each = next_endpoint(&list);
        bool is_curve = each.size > strlen(CURVE) && memcmp(each.data, CURVE, strlen(CURVE)) == 0;
        bool is_usable = each.data != NULL && (!is_curve || keys_file(location) != NULL);
        if (is_usable || chosen.data == NULL) chosen = each;
        if (is_usable) break;
    }
    if (chosen.data != NULL) {
        *endpoint = copy_of(&chosen);
        return *endpoint == NULL ? bsi_no_memory : NULL;
    }
    return bsi_unavailable(
        "no daemon is ready in %s: start one with `backscroll serve --data-dir %s`, or have `bs_open` start it",
        directory, directory);
}

/** Whether a text has neither control characters nor line separators, and is UTF-8. */
static bool is_printable(const char *text) {
    const uint8_t *bytes = (const uint8_t *)text;
    for (size_t at = 0; bytes[at] != 0; at++) {
        bool is_c1 = bytes[at] == 0xc2 && bytes[at + 1] < 0xa0;
        bool is_separator = bytes[at] == 0xe2 && bytes[at + 1] == 0x80 && (bytes[at + 2] | 1) == 0xa9;
        if (bytes[at] < 0x20 || bytes[at] == 0x7f || is_c1 || is_separator) return false;
    }
    return bsi_is_utf8(text, strlen(text));
}

static bs_error *find_token(const struct location *location, const struct buffer *announced, struct address *address) {
    bs_text of_daemon = lists(announced, address->endpoint) ? text_in(announced, "token") : (bs_text){0};
    bs_text of_variable = bs_text_of(variable(TOKEN_VARIABLE)), given = bs_text_of(location->token);
    bool is_given_endpoint = location->endpoint != NULL;
    const bs_text sources[] = {
        given, is_given_endpoint ? of_variable : of_daemon, is_given_endpoint ? of_daemon : of_variable};
    for (size_t at = 0; at < 3 && address->token == NULL; at++) {
        if (sources[at].size == 0) continue;
        address->token = copy_of(&sources[at]);
        if (address->token == NULL) return bsi_no_memory;
    }
    if (address->token == NULL) {
        return bsi_error(
            BS_UNAUTHENTICATED, NULL,
            "there is no token for %s: name the daemon's data directory, or give a token made by `backscroll token "
            "create`, as `token` or in the environment variable %s",
            address->endpoint, TOKEN_VARIABLE);
    }
    if (is_printable(address->token) && strlen(address->token) <= BS_AUTH_BYTES_MAX) return NULL;
    return bsi_error(
        BS_INVALID, NULL, "the token for %s is none: it must be printable text of at most %d bytes", address->endpoint,
        (int)BS_AUTH_BYTES_MAX);
}

/** Copy a key of CURVE; false if it is none. */
static bool copy_key(const struct buffer *keys, const char *name, char key[KEY_CHARS + 1]) {
    bs_text found = text_in(keys, name);
    if (found.size != KEY_CHARS) return false;
    memcpy(key, found.data, KEY_CHARS);
    return true;
}

static bs_error *read_keys(const struct location *location, struct address *address) {
    const char *file = keys_file(location);
    if (file == NULL) {
        return bsi_error(
            BS_INVALID, NULL,
            "%s needs keys from a file that `backscroll keys create` made: name it in `keys_file`, or in the "
            "environment variable %s",
            address->endpoint, KEYS_VARIABLE);
    }
    struct buffer keys = {0};
    address->has_keys = read_json(file, &keys) && copy_key(&keys, "serverKey", address->server_key) &&
                        copy_key(&keys, "publicKey", address->public_key) &&
                        copy_key(&keys, "secretKey", address->secret_key);
    if (keys.data != NULL) sodium_memzero(keys.data, keys.size);
    bsi_buffer_free(&keys);
    if (address->has_keys) return NULL;
    return bsi_error(BS_INVALID, NULL, "%s has no keys that `backscroll keys create` made", file);
}

static bs_error *find(const struct location *location, const char *directory, struct address *address) {
    struct buffer announced = {0};
    read_announced(directory, &announced);
    bs_error *error = NULL;
    if (location->endpoint == NULL) {
        error = first_endpoint(location, &announced, directory, &address->endpoint);
    } else {
        address->endpoint = bsi_joined(location->endpoint, "", "");
        if (address->endpoint == NULL) error = bsi_no_memory;
    }
    if (error == NULL) error = bsi_endpoint_check(address->endpoint);
    if (error == NULL && !bsi_begins_with(address->endpoint, IPC)) {
        if (bsi_begins_with(address->endpoint, CURVE)) error = read_keys(location, address);
        if (error == NULL) error = find_token(location, &announced, address);
    }
    if (announced.data != NULL) sodium_memzero(announced.data, announced.size);
    bsi_buffer_free(&announced);
    return error;
}

bs_error *bsi_address_find(const struct location *location, struct address *address) {
    *address = (struct address){0};
    if (location->endpoint != NULL && bsi_begins_with(location->endpoint, IPC)) {
        address->endpoint = bsi_joined(location->endpoint, "", "");
        return address->endpoint == NULL ? bsi_no_memory : NULL;
    }
    char *usual = NULL;
    bs_error *error = location->data_dir != NULL ? NULL : default_data_dir(&usual);
    if (error == NULL) error = find(location, location->data_dir != NULL ? location->data_dir : usual, address);
    free(usual);
    if (error != NULL) bsi_address_clear(address);
    return error;
}

/* Whether what answers is the daemon: after one was killed, another program may have its port. */

void bsi_nonce_new(char nonce[NONCE_CHARS + 1]) {
    uint8_t random[NONCE_CHARS / 2];
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(nonce, NONCE_CHARS + 1, random, sizeof random);
}

/** How long the name in a token such as `bot.q8Jx…` is; the start token has none. */
static size_t name_size(const char *token) {
    const char *dot = strrchr(token, '.');
    return dot == NULL ? 0 : (size_t)(dot - token);
}

void bsi_hello_pack(const char *token, const char *nonce, struct buffer *body) {
    size_t size = name_size(token);
    char id[64];
    snprintf(id, sizeof id, "hello-%s", nonce);
    bsi_pack_map(body, 3);
    bsi_pack_string(body, "id");
    bsi_pack_string(body, id);
    bsi_pack_string(body, "type");
    bsi_pack_string(body, "hello");
    bsi_pack_string(body, "payload");
    bsi_pack_map(body, size > 0 ? 2 : 1);
    bsi_pack_string(body, "nonce");
    bsi_pack_string(body, nonce);
    if (size == 0) return;
    bsi_pack_string(body, "name");
    bsi_pack_text(body, token, size);
}

void bsi_proof_of(
    const char *token, const char *nonce, const bs_text *endpoints, size_t count, char proof[DIGEST_CHARS + 1]) {
    static const char PREFIX[] = "backscroll-hello\n";
    uint8_t key[crypto_hash_sha256_BYTES], digest[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    crypto_hash_sha256(key, (const uint8_t *)token, strlen(token));
    crypto_auth_hmacsha256_init(&state, key, sizeof key);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)PREFIX, strlen(PREFIX));
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)nonce, strlen(nonce));
    for (size_t at = 0; at < count; at++) {
        crypto_auth_hmacsha256_update(&state, (const uint8_t *)"\n", 1);
        crypto_auth_hmacsha256_update(&state, (const uint8_t *)endpoints[at].data, endpoints[at].size);
    }
    crypto_auth_hmacsha256_final(&state, digest);
    sodium_bin2hex(proof, DIGEST_CHARS + 1, digest, sizeof digest);
}

/** Whether this is a proof about this token, this connection's nonce, and a daemon that is bound to this port. */
static bool is_proven(const struct address *address, const char *nonce, struct reader reply) {
    enum { ENDPOINTS_MAX = 64 };
    struct reader result, found, list;
    struct token given;
    bs_text endpoints[ENDPOINTS_MAX];
    size_t count;
    if (!bsi_find(reply, "result", &result) || !bsi_find(result, "proof", &found) || !bsi_read(&found, &given))
        return false;
    if (given.type != TOKEN_TEXT || given.size != DIGEST_CHARS) return false;
    if (!endpoints_in(result, &list, &count) || count > ENDPOINTS_MAX) return false;
    const char *port = port_of(address->endpoint);
    bool has_port = false;
    for (size_t at = 0; at < count; at++) {
        endpoints[at] = next_endpoint(&list);
        char *endpoint = endpoints[at].data == NULL ? NULL : copy_of(&endpoints[at]);
        if (endpoint == NULL) return false;
        if (strcmp(port_of(endpoint), port) == 0) has_port = true;
        free(endpoint);
    }
    char proof[DIGEST_CHARS + 1];
    bsi_proof_of(address->token, nonce, endpoints, count, proof);
    return sodium_memcmp(proof, given.data, DIGEST_CHARS) == 0 && has_port;
}

bs_error *bsi_hello_check(const struct address *address, const char *nonce, const void *body, size_t size) {
    struct reader reply = {body, (const uint8_t *)body + size}, error, code;
    struct token token = {0};
    if (is_proven(address, nonce, reply)) return NULL;
    bool has_code = bsi_find(reply, "error", &error) && bsi_find(error, "code", &code) && bsi_read(&code, &token) &&
                    token.type == TOKEN_TEXT;
    if (has_code && bsi_token_is(&token, "unauthenticated")) {
        return bsi_error(
            BS_UNAUTHENTICATED, NULL,
            "the daemon at %s does not know the token \"%.*s\": it was revoked, has expired, or is for another daemon; "
            "nothing was sent",
            address->endpoint, (int)name_size(address->token), address->token);
    }
    int shown = (int)(token.size < CODE_CHARS_MAX ? token.size : CODE_CHARS_MAX);
    return bsi_unavailable(
        "whatever answers at %s did not prove that it knows the token%s%.*s%s: it is another program, or the token is "
        "wrong or for another daemon; nothing was sent",
        address->endpoint, has_code ? " and answered \"" : "", has_code ? shown : 0,
        has_code ? (const char *)token.data : "", has_code ? "\"" : "");
}
