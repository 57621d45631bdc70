/** `zmtp.json`: a daemon byte by byte, in a thread, which a client pings. */

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../src/json.h"
#include "runner.h"

enum { GREETING_BYTES = 64, MORE = 1, LONG = 2, COMMAND = 4, FRAME_BYTES_MAX = 1024 };

/** The daemon of one vector. */
struct server {
    json_t *connections;
    int listener;
    char *why;   /**< What is not as expected. */
    char id[64]; /**< Of the latest request. */
};

/** Read so many bytes; what is wrong if they do not come. */
static char *read_bytes(int stream, uint8_t *bytes, size_t size) {
    for (size_t got = 0; got < size;) {
        struct pollfd file = {.fd = stream, .events = POLLIN};
        if (poll(&file, 1, TIMEOUT_MS) != 1) return told("the client sent %zu of %zu bytes", got, size);
        ssize_t part = recv(stream, bytes + got, size - got, 0);
        if (part <= 0) return told("the client closed the connection after %zu of %zu bytes", got, size);
        got += (size_t)part;
    }
    return NULL;
}

struct frame {
    uint8_t flags;
    size_t size;
    uint8_t body[FRAME_BYTES_MAX];
};

static char *read_frame(int stream, struct frame *frame) {
    uint8_t head[9];
    char *why = read_bytes(stream, head, 2);
    if (why != NULL) return why;
    frame->flags = head[0];
    frame->size = head[1];
    if (head[0] & LONG) {
        why = read_bytes(stream, head + 2, 7);
        if (why != NULL) return why;
        for (int at = 1; at < 9; at++) frame->size = frame->size << 8 | head[at];
    }
    if (frame->size > sizeof frame->body) return told("the client's frame has %zu bytes", frame->size);
    return read_bytes(stream, frame->body, frame->size);
}

static char *check_greeting(int stream) {
    uint8_t greeting[GREETING_BYTES];
    char *why = read_bytes(stream, greeting, sizeof greeting);
    if (why != NULL) return why;
    bool is_one =
        greeting[0] == 0xff && greeting[9] == 0x7f && greeting[10] == 3 && memcmp(greeting + 12, "NULL\0", 5) == 0;
    return is_one ? NULL : told("the client's greeting is not one of ZMTP 3 with the mechanism NULL");
}

static char *check_ready(int stream) {
    static const char NAME[] = "\5READY", TYPE[] = "\13Socket-Type\0\0\0\6DEALER";
    struct frame frame;
    char *why = read_frame(stream, &frame);
    if (why != NULL) return why;
    bool is_one = (frame.flags & COMMAND) && frame.size > 6 && memcmp(frame.body, NAME, 6) == 0 &&
                  memmem(frame.body, frame.size, TYPE, sizeof TYPE - 1) != NULL;
    return is_one ? NULL : told("expected READY of a DEALER, got another frame");
}

/** Read the client's next message, which must be one frame; commands are skipped. */
static char *read_request(struct server *server, int stream) {
    struct frame frame;
    do {
        char *why = read_frame(stream, &frame);
        if (why != NULL) return why;
    } while (frame.flags & COMMAND);
    if (frame.flags & MORE) return told("the client's request has more than one frame");
    json_t *request = json_of_msgpack(frame.body, frame.size);
    snprintf(server->id, sizeof server->id, "%s", text_of(request, "id"));
    bool is_ping = strcmp(text_of(request, "type"), "ping") == 0;
    json_decref(request);
    return is_ping ? NULL : told("the client's request is no ping");
}

static void write_bytes(int stream, const void *data, size_t size) {
    const char *at = data;
    for (ssize_t done = 0; size > 0; size -= (size_t)done, at += done) {
        done = send(stream, at, size, MSG_NOSIGNAL);
        if (done <= 0) return; // that the client closed the connection is seen elsewhere
    }
}

static void write_reply(const struct server *server, int stream, int flags, size_t padding) {
    struct buffer body = {0}, frame = {0};
    char *padded = calloc(padding + 1, 1);
    memset(padded, 'x', padding);
    bsi_pack_map(&body, padding > 0 ? 5 : 4);
    bsi_pack_string(&body, "id");
    bsi_pack_string(&body, server->id);
    bsi_pack_string(&body, "ok");
    bsi_pack_boolean(&body, true);
    bsi_pack_string(&body, "result");
    bsi_pack_map(&body, 1);
    bsi_pack_string(&body, "pong");
    bsi_pack_boolean(&body, true);
    bsi_pack_string(&body, "seq");
    bsi_pack_integer(&body, 0);
    if (padding > 0) {
        bsi_pack_string(&body, "padding");
        bsi_pack_text(&body, padded, padding);
    }
    uint8_t head[9] = {(uint8_t)flags, (uint8_t)body.size};
    for (int at = 8; at > 0 && (flags & LONG); at--) head[at] = (uint8_t)(body.size >> 8 * (8 - at));
    bsi_buffer_append(&frame, head, flags & LONG ? 9 : 2);
    bsi_buffer_append(&frame, body.data, body.size);
    write_bytes(stream, frame.data, frame.size);
    bsi_buffer_free(&body);
    bsi_buffer_free(&frame);
    free(padded);
}

static char *be_silent(int stream, int ms) {
    struct pollfd file = {.fd = stream, .events = POLLIN};
    return poll(&file, 1, ms) == 0 ? NULL : told("the client sent something where nothing may come");
}

static char *play_step(struct server *server, int stream, json_t *step) {
    char *unknown = unknown_key(step, "send each receive silent reply padding end");
    if (unknown != NULL) return unknown;
    const char *receive = text_of(step, "receive");
    if (strcmp(receive, "greeting") == 0) return check_greeting(stream);
    if (strcmp(receive, "ready") == 0) return check_ready(stream);
    if (strcmp(receive, "request") == 0) return read_request(server, stream);
    json_t *silent = json_object_get(step, "silent"), *reply = json_object_get(step, "reply");
    if (silent != NULL) return be_silent(stream, (int)json_integer_value(silent));
    if (reply != NULL) {
        size_t padding = (size_t)json_integer_value(json_object_get(step, "padding"));
        write_reply(server, stream, (int)json_integer_value(reply), padding);
        return NULL;
    }
    struct buffer bytes = {0};
    append_hex(&bytes, text_of(step, "send"));
    size_t each = json_object_get(step, "each") != NULL ? 1 : bytes.size;
    for (size_t at = 0; at < bytes.size; at += each) write_bytes(stream, bytes.data + at, each);
    bsi_buffer_free(&bytes);
    return NULL;
}

/** Wait until the client closes the connection. */
static char *await_end(int stream) {
    char chunk[256];
    for (;;) {
        struct pollfd file = {.fd = stream, .events = POLLIN};
        if (poll(&file, 1, TIMEOUT_MS) != 1) return told("the client did not close the connection");
        if (recv(stream, chunk, sizeof chunk, 0) <= 0) return NULL;
    }
}

static char *play_connection(struct server *server, int stream, json_t *steps, bool is_last) {
    json_t *step;
    size_t index;
    char *why = NULL;
    json_array_foreach(steps, index, step) {
        if (json_is_true(json_object_get(step, "end"))) return NULL;
        if (why == NULL) why = play_step(server, stream, step);
    }
    return why != NULL || is_last ? why : await_end(stream);
}

/** Play one connection after the other; the last one stays open, for the client to close. */
static void *serve(void *thing) {
    struct server *server = thing;
    size_t count = json_array_size(server->connections);
    int streams[16];
    size_t opened = 0;
    for (size_t at = 0; at < count && server->why == NULL; at++) {
        struct pollfd file = {.fd = server->listener, .events = POLLIN};
        if (poll(&file, 1, TIMEOUT_MS) != 1) {
            server->why = told("connection %zu of %zu: the client does not connect", at + 1, count);
            break;
        }
        int stream = accept(server->listener, NULL, NULL);
        bool is_last = at + 1 == count;
        char *why = play_connection(server, stream, json_array_get(server->connections, at), is_last);
        if (why != NULL) server->why = told("connection %zu of %zu: %s", at + 1, count, why);
        free(why);
        if (is_last)
            streams[opened++] = stream;
        else
            close(stream);
    }
    if (opened > 0 && server->why == NULL) free(await_end(streams[0]));
    while (opened > 0) close(streams[--opened]);
    return NULL;
}

char *play_zmtp(json_t *vector, json_t *file) {
    (void)file;
    const char *path = format("%s/z", temporary_directory());
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    struct server server = {
        .connections = json_object_get(vector, "connections"), .listener = socket(AF_UNIX, SOCK_STREAM, 0)};
    CHECK(bind(server.listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(server.listener, 8) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, &server) == 0);
    bs_client *client =
        client_with((bs_client_options){.endpoint = format("ipc://%s", path), .timeout_ms = TIMEOUT_MS});
    bs_pong *pong;
    bs_code code = bs_ping(client, NULL, &pong);
    char *problem = code == BS_OK ? NULL : told("%s", bs_last_error(client)->message);
    bs_free(pong);
    client_free(client);
    pthread_join(thread, NULL);
    close(server.listener);
    if (server.why == NULL) return problem;
    free(problem);
    return server.why;
}
