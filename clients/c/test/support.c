#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "../src/json.h"

extern char **environ;

enum { KEPT_MAX = 4096, CHUNK_BYTES = 65536 };

void fail(const char *file, int line, const char *text, ...) {
    va_list arguments;
    va_start(arguments, text);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, text, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    clean_up();
    exit(1);
}

void check_code(const char *file, int line, const bs_client *client, bs_code expected, bs_code code) {
    if (code == expected) return;
    const char *message = code == BS_OK ? "" : bs_last_error(client)->message;
    fail(file, line, "expected %s, got %s: %s", bs_code_name(expected), bs_code_name(code), message);
}

void check_has(const char *file, int line, const char *text, const char *part) {
    if (strstr(text, part) == NULL) fail(file, line, "\"%s\" does not have \"%s\"", text, part);
}

void keep_code(void *context, bs_reply *reply) {
    *(bs_code *)context = reply->code;
}

/* What is freed at the end of a test, the latest first. */

static struct kept {
    void (*end)(void *);
    void *thing;
} kept[KEPT_MAX];
static size_t kept_count;

static void *keep(void *thing, void (*end)(void *)) {
    CHECK(kept_count < KEPT_MAX && thing != NULL);
    kept[kept_count++] = (struct kept){end, thing};
    return thing;
}

/** Forget a thing, which was ended already. */
static void unkeep(const void *thing) {
    for (size_t at = 0; at < kept_count; at++) {
        if (kept[at].thing == thing) kept[at].thing = NULL;
    }
}

void clean_up(void) {
    while (kept_count > 0) {
        struct kept *each = &kept[--kept_count];
        if (each->thing != NULL) each->end(each->thing);
    }
}

char *format(const char *text, ...) {
    va_list arguments, again;
    va_start(arguments, text);
    va_copy(again, arguments);
    size_t size = (size_t)vsnprintf(NULL, 0, text, arguments) + 1;
    char *formatted = keep(malloc(size), free);
    vsnprintf(formatted, size, text, again);
    va_end(again);
    va_end(arguments);
    return formatted;
}

static int remove_entry(const char *path, const struct stat *found, int type, struct FTW *place) {
    (void)found, (void)type, (void)place;
    return remove(path);
}

static void remove_tree(void *path) {
    enum { FILES = 16 };
    (void)nftw(path, remove_entry, FILES, FTW_DEPTH | FTW_PHYS);
    free(path);
}

const char *temporary_directory(void) {
    const char *place = getenv("TMPDIR");
    char *path = malloc(200);
    CHECK(path != NULL);
    snprintf(path, 200, "%s/bs-XXXXXX", place != NULL ? place : "/tmp");
    CHECK(mkdtemp(path) != NULL);
    return keep(path, remove_tree);
}

const char *backscroll(void) {
    const char *named = getenv("BACKSCROLL");
    return named != NULL ? named : "backscroll";
}

/* Programs. */

static void program_end(void *thing) {
    struct program *program = thing;
    program_kill(program);
    if (program->input >= 0) close(program->input);
    fclose(program->output);
    free(program);
}

struct program *program_start(const char *shell_command) {
    int input[2], output[2];
    struct program *program = calloc(1, sizeof *program);
    CHECK(program != NULL && pipe2(input, O_CLOEXEC) == 0 && pipe2(output, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input[0], 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    char command[4096];
    CHECK(snprintf(command, sizeof command, "exec %s", shell_command) < (int)sizeof command);
    char *words[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", command, NULL};
    CHECK(posix_spawnp(&program->process, "sh", &actions, NULL, words, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(input[0]);
    close(output[1]);
    program->input = input[1];
    program->output = fdopen(output[0], "r");
    return keep(program, program_end);
}

void program_kill(struct program *program) {
    if (program->process <= 0) return;
    kill(program->process, SIGKILL);
    while (waitpid(program->process, NULL, 0) < 0 && errno == EINTR) continue;
    program->process = 0;
}

char *program_line(struct program *program) {
    char *line = NULL;
    size_t room = 0;
    if (getline(&line, &room, program->output) < 0) {
        free(line);
        return format("%s", "");
    }
    line[strcspn(line, "\n")] = '\0';
    return keep(line, free);
}

char *program_finish(struct program *program) {
    close(program->input);
    program->input = -1;
    return program_line(program);
}

char *printed(const char *shell_command) {
    FILE *output = popen(shell_command, "r");
    char text[8192];
    CHECK(output != NULL);
    size_t size = fread(text, 1, sizeof text - 1, output);
    text[size] = '\0';
    int status = pclose(output);
    if (status != 0) fail(__FILE__, __LINE__, "%s ended with %d: %s", shell_command, status, text);
    if (size > 0 && text[size - 1] == '\n') text[size - 1] = '\0';
    return format("%s", text);
}

/* Daemons. */

static void serve(struct daemon *daemon) {
    const char *words = "%s serve --data-dir %s --exit-with-parent %s 2>/dev/null";
    daemon->program = program_start(format(words, backscroll(), daemon->data_dir, daemon->flags));
    char *ready = program_line(daemon->program);
    CHECK_HAS(ready, "ready");
}

struct daemon daemon_start(const char *flags) {
    struct daemon daemon = {.data_dir = temporary_directory(), .flags = flags};
    serve(&daemon);
    return daemon;
}

void daemon_kill(struct daemon *daemon) {
    if (daemon->program != NULL) program_kill(daemon->program);
}

void daemon_restart(struct daemon *daemon) {
    daemon_kill(daemon);
    serve(daemon);
}

static json_t *announced(const struct daemon *daemon) {
    json_error_t error;
    json_t *read = json_load_file(format("%s/endpoint.json", daemon->data_dir), 0, &error);
    if (read == NULL) fail(__FILE__, __LINE__, "endpoint.json: %s", error.text);
    return read;
}

char *daemon_endpoint(const struct daemon *daemon) {
    json_t *read = announced(daemon);
    char *endpoint = format("%s", json_string_value(json_array_get(json_object_get(read, "endpoints"), 0)));
    json_decref(read);
    return endpoint;
}

char *daemon_token(const struct daemon *daemon) {
    json_t *read = announced(daemon);
    char *token = format("%s", json_string_value(json_object_get(read, "token")));
    json_decref(read);
    return token;
}

static void client_end(void *client) {
    bs_client_free(client);
}

bs_client *client_with(bs_client_options options) {
    bs_client *client;
    CHECK_CODE(client, BS_OK, bs_client_new(&options, &client));
    return keep(client, client_end);
}

bs_client *client_of(const char *data_dir) {
    return client_with((bs_client_options){.data_dir = data_dir, .timeout_ms = LONG_MS});
}

void client_free(bs_client *client) {
    unkeep(client);
    bs_client_free(client);
}

void wait_until(bs_client *client, bool (*condition)(void *), void *context) {
    enum { STEP_MS = 5 };
    for (int waited = 0; !condition(context); waited += STEP_MS) {
        if (waited > LONG_MS) fail(__FILE__, __LINE__, "waited %d ms in vain", LONG_MS);
        if (client != NULL)
            bs_poll(client, STEP_MS);
        else
            poll(NULL, 0, STEP_MS);
    }
}

bs_save_message_payload message_of(int number, const char *content) {
    return (bs_save_message_payload){
        .message = {
            .id = bs_text_of(format("m%d", number)),
            .room_id = BS_TEXT("r1"),
            .sender_id = BS_TEXT("ada"),
            .content = bs_text_of(content),
            .timestamp = INT64_C(1767225600000) + number,
        }};
}

bool is_running(pid_t process) {
    char state = 'Z';
    FILE *file = fopen(format("/proc/%d/stat", (int)process), "r");
    if (file == NULL) return false;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
    fclose(file);
    return state != 'Z' && state != 'X';
}

/* Fake daemons. */

struct fake {
    void *context;
    void *socket;
    void *control;
    pthread_t thread;
    fake_answer answer;
    void *answer_context;
    char endpoint[256];
    json_t *requests;
    bool is_stopped;
};

json_t *json_of_msgpack(const void *data, size_t size) {
    struct buffer text = {0};
    struct reader reader = {data, (const uint8_t *)data + size};
    json_t *value = NULL;
    if (bsi_json_write(&reader, &text)) {
        value = json_loadb((const char *)text.data, text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    }
    bsi_buffer_free(&text);
    return value;
}

/** Send a reply as MessagePack. */
static void send_reply(void *socket, const json_t *reply) {
    static const struct path ROOT = {NULL, "$", 1, 0};
    struct buffer body = {0};
    char *text = json_dumps(reply, JSON_COMPACT | JSON_ENCODE_ANY);
    bs_error *error = bsi_json_read(text, strlen(text), &body, &ROOT);
    CHECK(error == NULL);
    zmq_send(socket, body.data, body.size, 0);
    bsi_buffer_free(&body);
    free(text);
}

static void fake_receive(struct fake *fake) {
    zmq_msg_t identity, body;
    zmq_msg_init(&identity);
    zmq_msg_init(&body);
    zmq_msg_recv(&identity, fake->socket, 0);
    do zmq_msg_recv(&body, fake->socket, 0);
    while (zmq_msg_more(&body));
    json_t *request = json_of_msgpack(zmq_msg_data(&body), zmq_msg_size(&body));
    json_array_append_new(fake->requests, request);
    json_t *reply = fake->answer(fake->answer_context, request);
    if (reply != NULL) {
        zmq_msg_send(&identity, fake->socket, ZMQ_SNDMORE);
        send_reply(fake->socket, reply);
        json_decref(reply);
    }
    zmq_msg_close(&identity);
    zmq_msg_close(&body);
}

static void *fake_serve(void *thing) {
    struct fake *fake = thing;
    for (;;) {
        zmq_pollitem_t items[] = {{fake->socket, 0, ZMQ_POLLIN, 0}, {fake->control, 0, ZMQ_POLLIN, 0}};
        zmq_poll(items, 2, -1);
        if (items[1].revents != 0) break;
        if (items[0].revents != 0) fake_receive(fake);
    }
    zmq_close(fake->socket);
    zmq_close(fake->control);
    return NULL;
}

json_t *fake_stop(struct fake *fake) {
    if (!fake->is_stopped) {
        void *control = zmq_socket(fake->context, ZMQ_PAIR);
        zmq_connect(control, "inproc://control");
        zmq_send(control, "", 0, 0);
        pthread_join(fake->thread, NULL);
        zmq_close(control);
        zmq_ctx_term(fake->context);
        fake->is_stopped = true;
    }
    return fake->requests;
}

static void fake_end(void *thing) {
    struct fake *fake = thing;
    json_decref(fake_stop(fake));
    free(fake);
}

struct fake *fake_start(const char *endpoint, fake_answer answer, void *context) {
    struct fake *fake = calloc(1, sizeof *fake);
    CHECK(fake != NULL);
    fake->context = zmq_ctx_new();
    fake->socket = zmq_socket(fake->context, ZMQ_ROUTER);
    fake->control = zmq_socket(fake->context, ZMQ_PAIR);
    fake->answer = answer;
    fake->answer_context = context;
    fake->requests = json_array();
    int linger = 0;
    size_t size = sizeof fake->endpoint;
    zmq_setsockopt(fake->socket, ZMQ_LINGER, &linger, sizeof linger);
    if (zmq_bind(fake->socket, endpoint) != 0) fail(__FILE__, __LINE__, "%s: %s", endpoint, zmq_strerror(errno));
    zmq_getsockopt(fake->socket, ZMQ_LAST_ENDPOINT, fake->endpoint, &size);
    zmq_bind(fake->control, "inproc://control");
    CHECK(pthread_create(&fake->thread, NULL, fake_serve, fake) == 0);
    return keep(fake, fake_end);
}

const char *fake_endpoint(const struct fake *fake) {
    return fake->endpoint;
}

json_t *ok_reply(json_t *request, json_t *result) {
    return json_pack("{s:O, s:b, s:o, s:i}", "id", json_object_get(request, "id"), "ok", 1, "result", result, "seq", 1);
}

json_t *refusal(json_t *request, const char *code, const char *fault, bool retryable) {
    return json_pack(
        "{s:O, s:b, s:{s:s, s:s+, s:s, s:b}}", "id", json_object_get(request, "id"), "ok", 0, "error", "code", code,
        "message", "refused: ", code, "fault", fault, "retryable", retryable);
}

/* Relays. */

enum { PAIRS_MAX = 64 };

struct relay {
    int listener;
    const char *target;
    relay_change change;
    atomic_bool loses_replies;
    atomic_bool is_stopped;
    atomic_int cuts; /**< How often all connections were cut. */
    pthread_t thread;
};

static struct sockaddr_un address_of(const char *endpoint) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = strncmp(endpoint, "ipc://", 6) == 0 ? endpoint + 6 : endpoint;
    CHECK(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path));
    return address;
}

/** Forward what has come from one end to the other; false at the end. */
static bool forward(struct relay *relay, int from, int to, int connection, bool is_reply) {
    static char chunk[CHUNK_BYTES];
    ssize_t size = recv(from, chunk, sizeof chunk, 0);
    if (size <= 0) return false;
    if (is_reply && relay->loses_replies) return true;
    if (!is_reply && relay->change != NULL) relay->change(chunk, (size_t)size, connection);
    for (ssize_t sent = 0; sent < size;) {
        ssize_t done = send(to, chunk + sent, (size_t)(size - sent), MSG_NOSIGNAL);
        if (done <= 0) return false;
        sent += done;
    }
    return true;
}

static void *relay_serve(void *thing) {
    struct relay *relay = thing;
    int ends[2 * PAIRS_MAX], numbers[2 * PAIRS_MAX], count = 0, cuts = 0, connections = 0;
    while (!relay->is_stopped) {
        struct pollfd files[2 * PAIRS_MAX + 1] = {{.fd = relay->listener, .events = POLLIN}};
        for (int at = 0; at < count; at++) files[at + 1] = (struct pollfd){.fd = ends[at], .events = POLLIN};
        poll(files, (nfds_t)count + 1, 5);
        bool cuts_all = cuts != relay->cuts;
        cuts = relay->cuts;
        for (int at = count; at-- > 0;) {
            bool is_reply = at % 2 == 1;
            bool is_lost =
                cuts_all || (files[at + 1].revents && !forward(relay, ends[at], ends[at ^ 1], numbers[at], is_reply));
            if (!is_lost) continue;
            int first = at & ~1;
            close(ends[first]);
            close(ends[first + 1]);
            ends[first] = ends[count - 2];
            ends[first + 1] = ends[count - 1];
            numbers[first] = numbers[first + 1] = numbers[count - 1];
            count -= 2;
            at = first;
            if (!cuts_all) break;
        }
        if (files[0].revents == 0 || count == 2 * PAIRS_MAX) continue;
        int client = accept(relay->listener, NULL, NULL), daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un target = address_of(relay->target);
        if (client >= 0 && connect(daemon, (struct sockaddr *)&target, sizeof target) == 0) {
            numbers[count] = numbers[count + 1] = connections++;
            ends[count++] = client;
            ends[count++] = daemon;
        } else {
            close(client);
            close(daemon);
        }
    }
    while (count > 0) close(ends[--count]);
    close(relay->listener);
    return NULL;
}

static void relay_end(void *thing) {
    struct relay *relay = thing;
    relay->is_stopped = true;
    pthread_join(relay->thread, NULL);
    free(relay);
}

struct relay *relay_start(const char *listen_to, const char *target, relay_change change) {
    struct relay *relay = calloc(1, sizeof *relay);
    CHECK(relay != NULL);
    relay->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    relay->target = target;
    relay->change = change;
    struct sockaddr_un address = address_of(listen_to);
    CHECK(bind(relay->listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(relay->listener, 16) == 0);
    CHECK(pthread_create(&relay->thread, NULL, relay_serve, relay) == 0);
    return keep(relay, relay_end);
}

void relay_lose_replies(struct relay *relay, bool loses) {
    relay->loses_replies = loses;
}

void relay_cut(struct relay *relay) {
    relay->cuts++;
}

void relay_stop(struct relay *relay) {
    unkeep(relay);
    relay_end(relay);
}
