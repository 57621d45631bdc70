/** What an application can attach: a log, and the trace context of its spans. */

#include "tests.h"

enum { LINES_MAX = 16 };

/** Lines of a log. */
struct lines {
    char *lines[LINES_MAX];
    int count;
    const char *trace;
};

static void write_line(void *context, bs_log_level level, const char *line, const char *request) {
    struct lines *lines = context;
    CHECK(lines->count < LINES_MAX);
    const char *id = request != NULL && strlen(request) < 10 ? request : "";
    lines->lines[lines->count++] = format("%s %s %s", level == BS_LOG_DEBUG ? "debug" : "warning", line, id);
}

static const char *trace(void *context) {
    return ((struct lines *)context)->trace;
}

static json_t *answer(void *context, json_t *request) {
    (void)context;
    const char *type = json_string_value(json_object_get(request, "type"));
    if (strcmp(type, "save-user") == 0) return refusal(request, "busy", "daemon", true);
    if (strcmp(type, "get-room") == 0) return refusal(request, "not-found", "caller", false);
    if (strcmp(type, "ping") == 0) return ok_reply(request, json_pack("{s:b}", "pong", 1));
    return ok_reply(request, json_null());
}

static bool has_lost(void *context) {
    return ((struct lines *)context)->count == 5;
}

/** Rule: the log gets outcomes and connections, and nothing of what people wrote. */
TEST(the_log_gets_outcomes_and_connections) {
    struct fake *fake = fake_start(format("ipc://%s/f", temporary_directory()), answer, NULL);
    struct lines lines = {0};
    bs_client *client = client_with((bs_client_options){
        .endpoint = fake_endpoint(fake), .log = write_line, .context = &lines, .timeout_ms = LONG_MS});
    bs_save_message_payload save = message_of(1, "a secret");
    bs_save_user_payload user = {
        .user = {.id = BS_TEXT("a"), .oder_id = BS_TEXT("a"), .username = BS_TEXT("a secret")}};
    CHECK_CODE(client, BS_OK, bs_save_message(client, &save, &(bs_request){.request_id = "first"}));
    CHECK_CODE(client, BS_NOT_FOUND, bs_get_room(client, &(bs_get_room_payload){.room_id = BS_TEXT("r")}, NULL, NULL));
    CHECK_CODE(client, BS_BUSY, bs_save_user(client, &user, NULL));
    (void)fake_stop(fake);
    wait_until(client, has_lost, &lines);
    CHECK_HAS(lines.lines[0], "debug connected");
    CHECK_HAS(lines.lines[1], "debug save-message: ok in ");
    CHECK_HAS(lines.lines[1], " ms first");
    CHECK_HAS(lines.lines[2], "debug get-room: not-found");
    CHECK_HAS(lines.lines[3], "warning save-user: busy: refused: busy");
    CHECK_HAS(lines.lines[4], "warning not connected: no daemon answers at ipc:");
    for (int at = 0; at < lines.count; at++) CHECK(strstr(lines.lines[at], "secret") == NULL);
}

/** Rule: a request has its own trace context, or else the client's at that moment. */
TEST(a_request_has_a_trace_context) {
    struct fake *fake = fake_start(format("ipc://%s/f", temporary_directory()), answer, NULL);
    struct lines lines = {0};
    bs_client *client = client_with((bs_client_options){
        .endpoint = fake_endpoint(fake), .traceparent = trace, .context = &lines, .timeout_ms = LONG_MS});
    CHECK_CODE(client, BS_OK, bs_ping(client, NULL, NULL));
    lines.trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    CHECK_CODE(client, BS_OK, bs_ping(client, NULL, NULL));
    CHECK_CODE(client, BS_OK, bs_ping(client, &(bs_request){.traceparent = "00-own"}, NULL));
    json_t *requests = fake_stop(fake);
    CHECK(json_object_get(json_array_get(requests, 0), "traceparent") == NULL);
    CHECK_HAS(json_string_value(json_object_get(json_array_get(requests, 1), "traceparent")), "00-4bf9");
    CHECK_HAS(json_string_value(json_object_get(json_array_get(requests, 2), "traceparent")), "00-own");
}
