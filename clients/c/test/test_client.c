/** Operations, errors, what is refused before it is sent, and what comes from a later level. */

#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests.h"

static void read_back(const char *flags) {
    struct daemon daemon = daemon_start(flags);
    bs_client *client = client_of(daemon.data_dir);
    bs_save_message_payload save = message_of(1, "hello 👋 \u2028");
    save.message.has_edited_at = true;
    save.message.edited_at = INT64_C(253402300799999);
    save.message.has_revision = true;
    save.message.revision = BS_INTEGER_MAX;
    save.message.metadata =
        bs_json_of("{\"list\":[1,1.0,-0.0,1.5,null,true,18446744073709551615],\"text\":\"é\\u0000\"}");
    bs_text mentions[] = {BS_TEXT("bo"), BS_TEXT("cy")};
    save.message.has_mentions = true;
    save.message.mentions = (bs_text_array)BS_ITEMS(mentions);
    CHECK_CODE(client, BS_OK, bs_save_message(client, &save, NULL));
    CHECK(bs_last_seq(client) == 1);
    bs_get_message_page_payload newest = {.room_id = BS_TEXT("r1"), .has_limit = true, .limit = 50};
    bs_message_page *page;
    CHECK_CODE(client, BS_OK, bs_get_message_page(client, &newest, NULL, &page));
    CHECK(page->messages.count == 1 && !page->has_older);
    const bs_message *message = &page->messages.items[0];
    CHECK(bs_text_is(message->content, save.message.content.data) && message->timestamp == save.message.timestamp);
    CHECK(message->has_edited_at && message->edited_at == save.message.edited_at);
    CHECK(message->revision == BS_INTEGER_MAX && !message->is_deleted && !message->has_pinned_at);
    CHECK(strcmp(message->metadata.data, save.message.metadata.data) == 0);
    CHECK(message->has_mentions && message->mentions.count == 2 && bs_text_is(message->mentions.items[1], "cy"));
    CHECK(message->has_reactions && message->reactions.count == 0 && message->sender_name.data == NULL);
    bs_free(page);
}

/** Rule: what is saved is read back, free JSON with its integers of 64 bits and floats as they were. */
TEST(what_is_saved_over_ipc_is_read_back) {
    read_back("");
}

/** Rule: the same over tcp, where the daemon proves who it is and the token comes from its directory. */
TEST(what_is_saved_over_tcp_is_read_back) {
    read_back(TCP);
}

/** Rule: the same with CURVE and the keys in a file. */
TEST(what_is_saved_over_curve_is_read_back) {
    struct daemon daemon = {.data_dir = temporary_directory(), .flags = "--endpoint 'curve://127.0.0.1:*' " TCP};
    const char *keys = format("%s/keys", daemon.data_dir);
    (void)printed(format("%s keys create c --data-dir %s --to %s 2>/dev/null", backscroll(), daemon.data_dir, keys));
    daemon_restart(&daemon);
    const char *find = "grep -oE 'curve://[^\"]+' %s/endpoint.json";
    const char *endpoint = printed(format(find, daemon.data_dir));
    bs_client_options options = {.data_dir = daemon.data_dir, .endpoint = endpoint, .timeout_ms = LONG_MS};
    bs_client *without = client_with(options);
    options.keys_file = keys;
    bs_client *client = client_with(options);
    bs_save_message_payload save = message_of(1, "secret");
    CHECK_CODE(client, BS_OK, bs_save_message(client, &save, NULL));
    bs_client *any = client_of(daemon.data_dir); // which takes an endpoint that needs no keys
    CHECK_CODE(any, BS_OK, bs_save_message(any, &save, NULL));
    CHECK_CODE(without, BS_INVALID, bs_save_message(without, &save, NULL));
    CHECK_HAS(bs_last_error(without)->message, "needs keys from a file that `backscroll keys create` made");
}

/** Rule: an update clears, sets or keeps each field. */
TEST(a_field_is_cleared_set_or_kept) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    bs_save_message_payload save = message_of(1, "old");
    save.message.sender_name = bs_text_of("Ada");
    save.message.metadata = bs_json_of("{\"a\":1}");
    CHECK_CODE(client, BS_OK, bs_save_message(client, &save, NULL));
    bs_update_message_payload edit = {
        .message_id = BS_TEXT("m1"),
        .updates = {.content = {BS_SET, BS_TEXT("new")}, .sender_name = {.state = BS_CLEAR}, .pinned_at = {BS_SET, 5}}};
    CHECK_CODE(client, BS_OK, bs_update_message(client, &edit, NULL));
    bs_get_message_by_id_payload get = {.message_id = BS_TEXT("m1")}, none = {.message_id = BS_TEXT("none")};
    bs_message *message;
    CHECK_CODE(client, BS_OK, bs_get_message_by_id(client, &get, NULL, &message));
    CHECK(bs_text_is(message->content, "new") && message->sender_name.data == NULL && message->pinned_at == 5);
    CHECK(strcmp(message->metadata.data, "{\"a\":1}") == 0);
    bs_free(message);
    CHECK_CODE(client, BS_OK, bs_get_message_by_id(client, &none, NULL, &message));
    CHECK(message == NULL);
}

/** Rule: what cannot be sent is refused before, with its path. */
TEST(what_cannot_be_sent_is_refused_with_its_path) {
    bs_client *client = client_of("unused");
    bs_save_message_payload good = message_of(1, "hello"), bad = good;
    bs_update_message_payload update = {.message_id = BS_TEXT("m1")}, edit = update;
    const struct {
        const char *path;
        const char *json;
        bs_text content;
    } cases[] = {
        {"$.payload.message.content", NULL, {0}},
        {"$.payload.message.content", NULL, BS_TEXT("cut \xed\xa0\xbd")},
        {"$.payload.message.content", NULL, BS_TEXT("\xc0\xaf")},
        {"$.payload.message.metadata", "[]", BS_TEXT("x")},
        {"$.payload.message.metadata", "{\"a\":1} x", BS_TEXT("x")},
        {"$.payload.message.metadata", "{\"\\ud800\":1}", BS_TEXT("x")},
        {"$.payload.message.metadata.a[1].b", "{\"a\":[0,{\"b\":\"\\ude00\"}]}", BS_TEXT("x")},
        {"$.payload.message.metadata.a", "{\"a\":18446744073709551616}", BS_TEXT("x")},
        {"$.payload.message.metadata.a", "{\"a\":1e999}", BS_TEXT("x")},
        {"$.payload.message.metadata.a", "{\"a\":01}", BS_TEXT("x")},
        {"$.payload.message.metadata.a", "{\"a\":tru}", BS_TEXT("x")},
    };
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
        bad = good;
        bad.message.content = cases[at].content;
        bad.message.metadata = bs_json_of(cases[at].json);
        CHECK_CODE(client, BS_INVALID, bs_save_message(client, &bad, NULL));
        CHECK_HAS(bs_last_error(client)->path, cases[at].path);
        CHECK(strlen(bs_last_error(client)->path) == strlen(cases[at].path));
        CHECK_HAS(bs_last_error(client)->message, cases[at].path);
    }
    bad = good;
    bad.message.timestamp = BS_INTEGER_MAX + 1;
    CHECK_CODE(client, BS_INVALID, bs_save_message(client, &bad, NULL));
    bad = good;
    bad.message.pinned_at = 5; // without has_pinned_at
    CHECK_CODE(client, BS_INVALID, bs_save_message(client, &bad, NULL));
    CHECK_HAS(bs_last_error(client)->message, "$.payload.message.pinnedAt: it has a value");
    edit.updates.content.state = BS_CLEAR;
    CHECK_CODE(client, BS_INVALID, bs_update_message(client, &edit, NULL));
    CHECK_HAS(bs_last_error(client)->message, "$.payload.updates.content: it cannot be cleared");
    edit = update;
    edit.updates.content.value = bs_text_of("x"); // without BS_SET
    CHECK_CODE(client, BS_INVALID, bs_update_message(client, &edit, NULL));
    edit = update;
    edit.updates.content.state = (bs_update)7;
    CHECK_CODE(client, BS_INVALID, bs_update_message(client, &edit, NULL));
    CHECK_CODE(client, BS_INVALID, bs_save_message(client, NULL, NULL));
    CHECK_CODE(client, BS_INVALID, bs_call(client, "save-message", bs_json_of("7"), NULL, NULL));
    bs_batched_command command = {"launch-rocket", NULL};
    bs_batch_payload batch = {.commands = {&command, 1}};
    CHECK_CODE(client, BS_INVALID, bs_batch(client, &batch, NULL, NULL));
    const char *ids[] = {"", format("%065d", 0), "\xff"};
    for (size_t at = 0; at < 3; at++) {
        CHECK_CODE(client, BS_INVALID, bs_save_message(client, &good, &(bs_request){.request_id = ids[at]}));
    }
    char *large = malloc(8 << 20);
    memset(large, 'x', 8 << 20);
    bad = good;
    bad.message.content = (bs_text){large, 8 << 20};
    CHECK_CODE(client, BS_TOO_LARGE, bs_save_message(client, &bad, NULL));
    free(large);
}

/** Rule: an error has its code, fault, path and details. */
TEST(an_error_says_what_and_where) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    bs_update_message_payload edit = {.message_id = BS_TEXT("none"), .updates = {.content = {BS_SET, BS_TEXT("x")}}};
    CHECK_CODE(client, BS_NOT_FOUND, bs_update_message(client, &edit, NULL));
    const bs_error *error = bs_last_error(client);
    CHECK(strcmp(error->name, "not-found") == 0 && error->fault == BS_FAULT_CALLER && !error->retryable);
    CHECK(strcmp(error->path, "$.payload.messageId") == 0);
    bs_save_message_payload save = message_of(1, "one");
    bs_delete_message_payload missing = {.message_id = BS_TEXT("none")};
    bs_batched_command commands[] = {bs_save_message_command(&save), bs_delete_message_command(&missing)};
    bs_batch_payload batch = {.commands = BS_ITEMS(commands)};
    bs_json_array *results;
    CHECK_CODE(client, BS_NOT_FOUND, bs_batch(client, &batch, NULL, &results));
    error = bs_last_error(client);
    CHECK(error->failures.count == 1 && error->failures.items[0].index == 1);
    CHECK(bs_text_is(error->failures.items[0].code, "not-found"));
    CHECK_HAS(error->details.data, "\"failures\"");
    batch.commands.count = 1;
    CHECK_CODE(client, BS_OK, bs_batch(client, &batch, NULL, &results));
    CHECK(results->count == 1 && strcmp(results->items[0].data, "null") == 0);
    bs_free(results);
}

/** Rule: the same id is the same command, also for another client; two with one id at once are refused. */
TEST(an_id_makes_a_command_take_effect_once) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir), *other = client_of(daemon.data_dir);
    bs_create_user_payload create = {.pubkey = BS_TEXT("a key")}, another = {.pubkey = BS_TEXT("another")};
    char id[27];
    bs_new_id(client, id);
    bs_request request = {.request_id = id};
    bs_user *first, *second;
    CHECK_CODE(client, BS_OK, bs_create_user(client, &create, &request, &first));
    CHECK_CODE(other, BS_OK, bs_create_user(other, &create, &request, &second));
    CHECK(strcmp(first->id.data, second->id.data) == 0 && bs_last_seq(client) == bs_last_seq(other));
    CHECK_CODE(client, BS_CONFLICT, bs_create_user(client, &another, &request, NULL));
    bs_save_message_payload save = message_of(1, "x");
    bs_request same = {.request_id = "same"};
    CHECK(bs_save_message_send(client, &save, &same, NULL, NULL) != 0);
    CHECK(bs_save_message_send(client, &save, &same, NULL, NULL) == 0);
    CHECK_HAS(bs_last_error(client)->message, "already in flight");
    bs_free(first);
    bs_free(second);
}

/** Rule: scopes are separate, and a name of another level is sent by `bs_call`. */
TEST(scopes_are_separate) {
    struct daemon daemon = daemon_start("");
    bs_client *ada = client_with((bs_client_options){.data_dir = daemon.data_dir, .scope = "ada"});
    bs_client *bob = client_with((bs_client_options){.data_dir = daemon.data_dir, .scope = "bob"});
    bs_save_message_payload save = message_of(1, "x");
    CHECK_CODE(ada, BS_OK, bs_save_message(ada, &save, NULL));
    bs_json *result;
    bs_json get = bs_json_of("{\"messageId\": \"m1\", \"childLists\": false}");
    CHECK_CODE(bob, BS_OK, bs_call(bob, "get-message-by-id", get, NULL, &result));
    CHECK(strcmp(result->data, "null") == 0);
    bs_free(result);
    CHECK_CODE(ada, BS_OK, bs_call(ada, "get-message-by-id", get, NULL, &result));
    CHECK_HAS(result->data, "\"content\":\"x\"");
    bs_free(result);
    CHECK_CODE(ada, BS_UNKNOWN_OPERATION, bs_call(ada, "launch-rocket", (bs_json){0}, NULL, NULL));
}

/** Rule: without a daemon the error says so and what to do; options that cannot be used are refused. */
TEST(without_a_daemon_it_says_so) {
    bs_client *client = client_with((bs_client_options){.data_dir = temporary_directory(), .timeout_ms = 50});
    CHECK_CODE(client, BS_UNAVAILABLE, bs_ping(client, NULL, NULL));
    CHECK_HAS(bs_last_error(client)->message, "start one with `backscroll serve --data-dir");
    CHECK(bs_last_error(client)->retryable);
    bs_close(client);
    CHECK_CODE(client, BS_UNAVAILABLE, bs_ping(client, NULL, NULL));
    CHECK_HAS(bs_last_error(client)->message, "the client was closed; nothing was sent");
    const char *endpoints[] = {"http://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:x",
                               "ipc://",           "tcp://:5"};
    for (size_t at = 0; at < sizeof endpoints / sizeof *endpoints; at++) {
        bs_client *refused;
        CHECK_CODE(refused, BS_INVALID, bs_client_new(&(bs_client_options){.endpoint = endpoints[at]}, &refused));
        bs_client_free(refused);
    }
    bs_client *refused;
    CHECK_CODE(refused, BS_INVALID, bs_client_new(&(bs_client_options){.timeout_ms = -1}, &refused));
    bs_client_free(refused);
    bs_client *long_path =
        client_with((bs_client_options){.endpoint = format("ipc:///%0200d", 1), .timeout_ms = LONG_MS});
    CHECK_CODE(long_path, BS_INVALID, bs_ping(long_path, NULL, NULL));
}

static void count_outcomes(void *context, bs_reply *reply) {
    if (reply->code == BS_OK) ++*(int *)context;
}

/** Rule: a client that waits finds a daemon that starts. */
TEST(a_client_that_waits_finds_a_daemon_that_starts) {
    struct daemon daemon = daemon_start("");
    daemon_kill(&daemon);
    bs_client *client = client_of(daemon.data_dir);
    int done = 0;
    CHECK(bs_ping_send(client, NULL, count_outcomes, &done) != 0);
    (void)bs_poll(client, 100);
    daemon_restart(&daemon);
    while (bs_pending(client) > 0) bs_poll(client, -1);
    CHECK(done == 1);
}

static void keep_result(void *context, bs_reply *reply) {
    *(void **)context = bs_take_result(reply);
    CHECK(strlen(reply->request_id) == 26 && reply->seq == 1);
}

/** Rule: a callback may keep its result; a request that was cancelled calls nothing. */
TEST(a_result_can_be_kept_and_a_request_cancelled) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    bs_save_message_payload save = message_of(1, "x");
    CHECK_CODE(client, BS_OK, bs_save_message(client, &save, NULL));
    bs_get_messages_payload get = {.room_id = BS_TEXT("r1")};
    bs_message_array *messages = NULL;
    int cancelled = 0;
    bs_ticket ticket = bs_get_messages_send(client, &get, NULL, count_outcomes, &cancelled);
    CHECK(bs_get_messages_send(client, &get, NULL, keep_result, &messages) != 0);
    bs_cancel(client, ticket);
    while (bs_pending(client) > 0) bs_poll(client, -1);
    CHECK(messages->count == 1 && cancelled == 0 && bs_poll(client, -1) == 0);
    bs_free(messages);
}

struct nested {
    bs_client *client;
    bool is_done;
};

static void ask_inside(void *context, bs_reply *reply) {
    struct nested *nested = context;
    CHECK(reply->code == BS_OK);
    bs_pong *pong;
    CHECK_CODE(nested->client, BS_OK, bs_ping(nested->client, NULL, &pong));
    bs_free(pong);
    bs_close(nested->client);
    nested->is_done = true;
}

/** Rule: a callback may wait for requests, and close the client. */
TEST(a_callback_may_use_the_client) {
    struct daemon daemon = daemon_start("");
    struct nested nested = {.client = client_of(daemon.data_dir)};
    CHECK(bs_ping_send(nested.client, NULL, ask_inside, &nested) != 0);
    while (!nested.is_done) bs_poll(nested.client, -1);
    CHECK_CODE(nested.client, BS_UNAVAILABLE, bs_ping(nested.client, NULL, NULL));
}

/** Rule: closing settles what waits: unknown if it was sent, unavailable if not. */
TEST(closing_settles_what_waits) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    bs_get_changes_payload now = {.after = BS_TEXT("now")};
    bs_change_page *page;
    CHECK_CODE(client, BS_OK, bs_get_changes(client, &now, NULL, &page));
    bs_get_changes_payload wait = {.after = page->cursor, .has_wait_ms = true, .wait_ms = 60000};
    bs_code sent = BS_OK, unsent = BS_OK;
    CHECK(bs_get_changes_send(client, &wait, NULL, keep_code, &sent) != 0);
    bs_client *elsewhere = client_of(temporary_directory());
    CHECK(bs_ping_send(elsewhere, NULL, keep_code, &unsent) != 0);
    bs_close(client);
    bs_close(elsewhere);
    CHECK(sent == BS_NO_REPLY && unsent == BS_UNAVAILABLE);
    bs_free(page);
}

static json_t *ignore(void *context, json_t *request) {
    (void)context, (void)request;
    return NULL;
}

/** Rule: at its deadline the outcome of a request that was sent is unknown, and a connection that is silent is given up. */
TEST(at_the_deadline_the_outcome_is_unknown) {
    struct fake *fake = fake_start(format("ipc://%s/f", temporary_directory()), ignore, NULL);
    bs_client *client = client_with((bs_client_options){.endpoint = fake_endpoint(fake)});
    CHECK_CODE(client, BS_NO_REPLY, bs_ping(client, &(bs_request){.timeout_ms = 500}, NULL));
    CHECK_HAS(bs_last_error(client)->message, "no reply within 500 ms: whether the request took effect is unknown");
    CHECK_CODE(client, BS_NO_REPLY, bs_ping(client, &(bs_request){.timeout_ms = 500}, NULL));
    json_t *requests = fake_stop(fake);
    CHECK(json_array_size(requests) == 2);
    CHECK(json_integer_value(json_object_get(json_array_get(requests, 0), "level")) == BS_LEVEL);
    CHECK(json_object_get(json_array_get(requests, 1), "level") == NULL);
}

static json_t *answer_of_the_future(void *context, json_t *request) {
    (void)context;
    const char *type = json_string_value(json_object_get(request, "type"));
    if (strcmp(type, "get-room") == 0) return refusal(request, "teapot", "caller", false);
    if (strcmp(type, "get-user") == 0) return refusal(request, "meltdown", "daemon", true);
    json_t *message = json_pack(
        "{s:s, s:s, s:s, s:i, s:b, s:s, s:{s:i}}", "id", "m1", "roomId", "r1", "content", "x", "timestamp", 5,
        "isDeleted", 0, "type", "hologram", "hue", "of", 7);
    if (strcmp(type, "get-message-by-id") == 0) return ok_reply(request, message);
    json_decref(message);
    return ok_reply(request, json_string("of another type"));
}

/** Rule: fields, values and codes of a later level are kept; a result of another type is none. */
TEST(what_a_later_level_has_is_kept) {
    struct fake *fake = fake_start(format("ipc://%s/f", temporary_directory()), answer_of_the_future, NULL);
    bs_client *client = client_with((bs_client_options){.endpoint = fake_endpoint(fake), .timeout_ms = LONG_MS});
    bs_get_message_by_id_payload get = {.message_id = BS_TEXT("m1")};
    bs_message *message;
    CHECK_CODE(client, BS_OK, bs_get_message_by_id(client, &get, NULL, &message));
    CHECK(bs_text_is(message->type, "hologram") && strcmp(message->others.data, "{\"hue\":{\"of\":7}}") == 0);
    bs_free(message);
    CHECK_CODE(client, BS_OTHER, bs_get_room(client, &(bs_get_room_payload){.room_id = BS_TEXT("r")}, NULL, NULL));
    CHECK(strcmp(bs_last_error(client)->name, "teapot") == 0 && bs_last_error(client)->fault == BS_FAULT_CALLER);
    CHECK_CODE(client, BS_OTHER, bs_get_user(client, &(bs_get_user_payload){.user_id = BS_TEXT("u")}, NULL, NULL));
    CHECK(bs_last_error(client)->fault == BS_FAULT_DAEMON && bs_last_error(client)->retryable);
    CHECK_CODE(client, BS_INTERNAL, bs_list_users(client, NULL, NULL, NULL));
    CHECK_HAS(bs_last_error(client)->message, "$.result: the daemon's reply has another type");
}

static void on_alarm(int number) {
    (void)number;
}

/** Rule: signals interrupt no request; `bs_poll` returns early. */
TEST(signals_interrupt_no_request) {
    struct daemon daemon = daemon_start("");
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    bs_client *client = client_of(daemon.data_dir);
    bs_get_changes_payload now = {.after = BS_TEXT("now")};
    bs_change_page *page, *empty;
    CHECK_CODE(client, BS_OK, bs_get_changes(client, &now, NULL, &page));
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    bs_get_changes_payload wait = {.after = page->cursor, .has_wait_ms = true, .wait_ms = 200};
    CHECK_CODE(client, BS_OK, bs_get_changes(client, &wait, NULL, &empty));
    CHECK(empty->changes.count == 0);
    CHECK(bs_poll(client, 60000) == 0);
    setitimer(ITIMER_REAL, &never, NULL);
    bs_free(page);
    bs_free(empty);
}

static int count_threads(void) {
    return atoi(printed("ls /proc/$PPID/task | wc -l"));
}

/** Rule: signals keep no client from being freed with the threads of libzmq. */
TEST(signals_leave_no_threads_behind) {
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    int before = count_threads();
    bs_client_options options = {.endpoint = format("ipc://%s/none", temporary_directory())};
    for (int number = 0; number < 50; number++) {
        bs_client *client;
        CHECK_CODE(client, BS_OK, bs_client_new(&options, &client));
        CHECK(bs_ping_send(client, NULL, NULL, NULL) != 0);
        bs_poll(client, 0);
        setitimer(ITIMER_REAL, &often, NULL);
        bs_client_free(client);
        setitimer(ITIMER_REAL, &never, NULL);
    }
    CHECK(count_threads() == before);
}

/** Rule: after a fork only the parent can use a client, and the child can free it. */
TEST(after_a_fork_only_the_parent_uses_a_client) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    bs_changes *changes;
    const bs_item_change *change;
    CHECK_CODE(client, BS_OK, bs_changes_open(client, NULL, &changes));
    CHECK_CODE(client, BS_OK, bs_ping(client, NULL, NULL));
    CHECK_CODE(client, BS_OK, bs_changes_next(changes, &change, 0));
    CHECK(bs_pending(client) == 1);
    pid_t child = fork();
    if (child == 0) {
        bool is_refused = bs_ping(client, NULL, NULL) == BS_INVALID;
        is_refused = is_refused && bs_changes_next(changes, &change, 1000) == BS_INVALID;
        bs_changes_free(changes);
        bs_client_free(client);
        _exit(is_refused ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_CODE(client, BS_OK, bs_ping(client, NULL, NULL));
    bs_changes_free(changes);
}
