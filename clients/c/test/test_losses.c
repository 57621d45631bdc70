/** Real daemons and lost connections: nothing is lost, nothing takes effect twice, and nothing overtakes what was sent before. */

#include "tests.h"

enum { MANY = 10000, REFUSED_EVERY = 7, PAIRS = 20, SEEDS = 3, SEEDS_LONG = 100 };

/** Commands without waiting, and what came of them. */
struct pipeline {
    bs_client *client;
    struct daemon *killed; /**< A daemon that is killed three times meanwhile, or NULL. */
    bs_code outcomes[MANY];
    int settled;
    int kills;
};

/** The place of one outcome. */
struct place {
    struct pipeline *pipeline;
    int number;
};

static void note_outcome(void *context, bs_reply *reply) {
    struct place *place = context;
    struct pipeline *pipeline = place->pipeline;
    pipeline->outcomes[place->number] = reply->code;
    pipeline->settled++;
    bool is_due = pipeline->kills < 3 && pipeline->settled >= (pipeline->kills + 1) * MANY / 5;
    if (pipeline->killed != NULL && is_due) {
        pipeline->kills++;
        daemon_restart(pipeline->killed);
    }
}

/** Save messages without waiting, and among that update one that is never there. */
static void run(struct pipeline *pipeline) {
    struct place *places = calloc(MANY, sizeof *places);
    CHECK(places != NULL);
    for (int number = 0; number < MANY; number++) {
        places[number] = (struct place){pipeline, number};
        char id[32];
        snprintf(id, sizeof id, "m%d", number);
        bs_save_message_payload save = {
            .message = {
                .id = bs_text_of(id),
                .room_id = BS_TEXT("r1"),
                .sender_id = BS_TEXT("ada"),
                .content = bs_text_of(id),
                .timestamp = INT64_C(1767225600000) + number,
            }};
        bs_update_message_payload edit = {
            .message_id = BS_TEXT("none"), .updates = {.content = {BS_SET, BS_TEXT("x")}}};
        bs_ticket ticket = number % REFUSED_EVERY == 0
                               ? bs_update_message_send(pipeline->client, &edit, NULL, note_outcome, &places[number])
                               : bs_save_message_send(pipeline->client, &save, NULL, note_outcome, &places[number]);
        CHECK(ticket != 0);
    }
    while (bs_pending(pipeline->client) > 0) bs_poll(pipeline->client, -1);
    free(places);
}

/**
 * Each command has its outcome, and an observer reads in the log that each save took effect once, in the order of the calls. A
 * command that was refused, the reply lost, may be superseded when it is sent again.
 */
static void check_complete(const struct pipeline *pipeline, bs_client *observer) {
    for (int number = 0; number < MANY; number++) {
        bs_code code = pipeline->outcomes[number];
        bool is_refused = code == BS_NOT_FOUND || code == BS_SUPERSEDED;
        if (number % REFUSED_EVERY == 0 ? is_refused : code == BS_OK) continue;
        fail(__FILE__, __LINE__, "command %d: %s", number, bs_code_name(code));
    }
    int number = 0;
    int64_t from = 1, last = 1;
    while (from <= last) {
        bs_get_log_payload get = {.has_from_seq = true, .from_seq = from, .has_limit = true, .limit = 500};
        bs_log_page *page;
        CHECK_CODE(observer, BS_OK, bs_get_log(observer, &get, NULL, &page));
        for (size_t at = 0; at < page->entries.count; at++, number++) {
            if (number % REFUSED_EVERY == 0) number++;
            char id[64];
            snprintf(id, sizeof id, "\"id\":\"m%d\"", number);
            CHECK_HAS(page->entries.items[at].payload.data, id);
        }
        from += (int64_t)page->entries.count;
        last = page->last_seq;
        bs_free(page);
    }
    if (number != MANY) fail(__FILE__, __LINE__, "the log ends before command %d", number);
}

static void count_connection(void *context, const bs_error *problem) {
    if (problem == NULL) ++*(int *)context;
}

static void survive_kills(const char *flags) {
    // Small portions, so that replies come while others wait.
    struct daemon daemon = daemon_start(format("--batch-requests 100 %s", flags));
    int connections = 0;
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    CHECK(pipeline != NULL);
    pipeline->killed = &daemon;
    pipeline->client = client_with((bs_client_options){
        .data_dir = daemon.data_dir,
        .timeout_ms = 4 * LONG_MS,
        .on_connection = count_connection,
        .context = &connections,
    });
    run(pipeline);
    CHECK(pipeline->kills == 3 && connections == 4);
    check_complete(pipeline, client_of(daemon.data_dir));
    free(pipeline);
}

/** Rule: 10,000 commands over three kills take effect once and in order, over ipc. */
TEST(losses_of_daemons_over_ipc_do_no_harm) {
    survive_kills("");
}

/** Rule: 10,000 commands over three kills take effect once and in order, over tcp. */
TEST(losses_of_daemons_over_tcp_do_no_harm) {
    survive_kills(TCP);
}

/** Rule: 10,000 commands over connections that are cut, delayed and swallowed take effect once and in order. */
TEST(losses_of_connections_do_no_harm) {
    struct daemon daemon = daemon_start("");
    const char *endpoint = daemon_endpoint(&daemon), *python = getenv("PYTHON");
    int faults = 0, seeds = is_long() ? SEEDS_LONG : SEEDS;
    for (int seed = 0; seed < seeds; seed++) {
        const char *scope = format("seed-%d", seed);
        struct program *proxy = program_start(format(
            "sh -c 'cd ../.. && exec %s -m tests.support.proxy ipc://%s/p %s --seed %d'",
            python != NULL ? python : "python3", temporary_directory(), endpoint, seed));
        json_t *line = json_loads(program_line(proxy), 0, NULL);
        CHECK(line != NULL);
        struct pipeline *pipeline = calloc(1, sizeof *pipeline);
        CHECK(pipeline != NULL);
        pipeline->client = client_with((bs_client_options){
            .endpoint = json_string_value(json_object_get(line, "endpoint")),
            .scope = scope,
            .timeout_ms = 4 * LONG_MS});
        printf("seed %d\n", seed);
        run(pipeline);
        client_free(pipeline->client);
        json_decref(line);
        line = json_loads(program_finish(proxy), 0, NULL);
        const char *kind;
        json_t *number;
        json_object_foreach(json_object_get(line, "faults"), kind, number) faults += (int)json_integer_value(number);
        json_decref(line);
        bs_client *observer =
            client_with((bs_client_options){.endpoint = endpoint, .scope = scope, .timeout_ms = LONG_MS});
        check_complete(pipeline, observer);
        client_free(observer);
        free(pipeline);
    }
    CHECK(faults > seeds);
}

/** Give the commands of each connection another `client`, of the same length. */
static void renamed(char *data, size_t size, int connection) {
    static const char NAME[] = "client\xba"; // 26 characters follow
    for (char *at = data; (at = memmem(at, size - (size_t)(at - data), NAME, strlen(NAME))) != NULL; at++) {
        char *last = at + strlen(NAME) + 25;
        if (last < data + size) *last = (char)('A' + connection);
    }
}

struct everywhere {
    bs_client *observer;
};

static bool has_all(void *context) {
    struct everywhere *everywhere = context;
    bs_get_messages_payload get = {.room_id = BS_TEXT("r1")};
    bs_message_array *messages;
    CHECK_CODE(everywhere->observer, BS_OK, bs_get_messages(everywhere->observer, &get, NULL, &messages));
    bool has_all = messages->count == PAIRS;
    bs_free(messages);
    return has_all;
}

/** Pairs of an update that is refused unread and a later save, sent again over another connection. */
static void lose_refusals(relay_change change, bs_code expected, const char *content) {
    struct daemon daemon = daemon_start("");
    const char *path = format("%s/r", temporary_directory());
    struct relay *relay = relay_start(path, daemon_endpoint(&daemon), change);
    bs_client *client = client_with((bs_client_options){.endpoint = format("ipc://%s", path), .timeout_ms = LONG_MS});
    struct everywhere everywhere = {client_of(daemon.data_dir)};
    bs_code updates[PAIRS], saves[PAIRS];
    CHECK_CODE(client, BS_OK, bs_ping(client, NULL, NULL));
    relay_lose_replies(relay, true);
    for (int number = 0; number < PAIRS; number++) {
        bs_update_message_payload edit = {
            .message_id = bs_text_of(format("m%d", number)), .updates = {.content = {BS_SET, BS_TEXT("old")}}};
        bs_save_message_payload save = message_of(number, "new");
        CHECK(bs_update_message_send(client, &edit, NULL, keep_code, &updates[number]) != 0);
        CHECK(bs_save_message_send(client, &save, NULL, keep_code, &saves[number]) != 0);
    }
    wait_until(client, has_all, &everywhere);
    relay_lose_replies(relay, false);
    relay_cut(relay);
    while (bs_pending(client) > 0) bs_poll(client, -1);
    for (int number = 0; number < PAIRS; number++) CHECK(updates[number] == expected && saves[number] == BS_OK);
    bs_get_messages_payload get = {.room_id = BS_TEXT("r1")};
    bs_message_array *messages;
    CHECK_CODE(client, BS_OK, bs_get_messages(client, &get, NULL, &messages));
    for (size_t at = 0; at < messages->count; at++) CHECK(bs_text_is(messages->items[at].content, content));
    bs_free(messages);
    client_free(client);
    relay_stop(relay);
}

/** Rule: an update that was refused unread, and is sent again, never wins over a later save. */
TEST(losses_of_refusals_never_let_an_update_win) {
    lose_refusals(NULL, BS_SUPERSEDED, "new");
}

/** Rule: without one `client` for both connections it would win, so the test above shows something. */
TEST(losses_of_refusals_would_let_it_win_without_its_client) {
    lose_refusals(renamed, BS_OK, "old");
}
