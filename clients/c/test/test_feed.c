/** Following what changes, over restarts and other histories. */

#include "tests.h"

static void save(bs_client *client, int number, const char *room) {
    bs_save_message_payload payload = message_of(number, format("%d", number));
    payload.message.room_id = bs_text_of(room);
    CHECK_CODE(client, BS_OK, bs_save_message(client, &payload, NULL));
}

static const bs_item_change *next(bs_client *client, bs_changes *changes) {
    const bs_item_change *change;
    CHECK_CODE(client, BS_OK, bs_changes_next(changes, &change, LONG_MS));
    CHECK(change != NULL);
    return change;
}

/** Rule: changes come in order, from the beginning, from a stored cursor, and over restarts. */
TEST(changes_come_in_order_and_over_restarts) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    for (int number = 1; number <= 3; number++) save(client, number, "r1");
    const char *nouns[] = {"message", NULL};
    bs_changes *changes, *again;
    const bs_item_change *change;
    CHECK_CODE(client, BS_OK, bs_changes_open(client, &(bs_changes_options){.nouns = nouns, .limit = 2}, &changes));
    for (int number = 1; number <= 3; number++) {
        change = next(client, changes);
        CHECK(bs_text_is(change->id, format("m%d", number)) && bs_text_is(change->noun, "message"));
        CHECK(bs_changes_at_page_end(changes) == (number != 1));
    }
    CHECK_CODE(client, BS_OK, bs_changes_next(changes, &change, 20));
    CHECK(change == NULL);
    for (int number = 4; number <= 5; number++) {
        daemon_restart(&daemon);
        save(client, number, "r1");
        change = next(client, changes);
        CHECK(bs_text_is(change->message->content, format("%d", number)) && change->seq == number);
    }
    CHECK_CODE(
        client, BS_OK, bs_changes_open(client, &(bs_changes_options){.after = bs_changes_cursor(changes)}, &again));
    CHECK_CODE(client, BS_OK, bs_delete_room(client, &(bs_delete_room_payload){.room_id = BS_TEXT("r1")}, NULL));
    change = next(client, again);
    CHECK(change->gone && change->id.data == NULL && bs_text_is(change->room_id, "r1"));
    bs_changes_free(changes);
    bs_changes_free(again);
}

/** Rule: a cursor of another history is a gap, with a cursor to go on after; then the changes have ended. */
TEST(a_cursor_of_another_history_is_a_gap) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    for (int number = 1; number <= 2; number++) save(client, number, "r1");
    bs_changes *changes;
    const bs_item_change *change;
    CHECK_CODE(client, BS_OK, bs_changes_open(client, NULL, &changes));
    for (int number = 1; number <= 2; number++) (void)next(client, changes);
    CHECK_CODE(client, BS_OK, bs_delete_scope(client, NULL));
    save(client, 3, "r1");
    CHECK_CODE(client, BS_FEED_GAP, bs_changes_next(changes, &change, LONG_MS));
    const char *cursor = format("%s", bs_last_error(client)->cursor);
    CHECK_CODE(client, BS_INVALID, bs_changes_next(changes, &change, LONG_MS));
    bs_changes_free(changes);
    CHECK_CODE(client, BS_OK, bs_changes_open(client, &(bs_changes_options){.after = cursor}, &changes));
    save(client, 4, "r1");
    CHECK(bs_text_is(next(client, changes)->id, "m4"));
    bs_changes_free(changes);
}

/** Rule: a watched query gives each new result, over restarts, and says when the history is another one. */
TEST(a_watched_query_gives_each_new_result) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir), *other = client_of(daemon.data_dir);
    bs_get_messages_payload get = {.room_id = BS_TEXT("r1")};
    bs_watch *watch;
    const bs_watched *watched;
    CHECK_CODE(client, BS_OK, bs_get_messages_watch(client, &get, &watch));
    for (int number = 0; number <= 2; number++) {
        if (number == 2) daemon_restart(&daemon);
        if (number > 0) save(other, number, "r1");
        CHECK_CODE(client, BS_OK, bs_watch_next(watch, &watched, LONG_MS));
        const bs_message_array *messages = watched->result;
        CHECK(messages->count == (size_t)number && watched->seq == number && !watched->gap);
    }
    save(other, 3, "r2"); // of another room nothing is told
    CHECK_CODE(client, BS_OK, bs_watch_next(watch, &watched, 100));
    CHECK(watched == NULL);
    CHECK_CODE(other, BS_OK, bs_delete_scope(other, NULL));
    CHECK_CODE(client, BS_OK, bs_watch_next(watch, &watched, LONG_MS));
    CHECK(((const bs_message_array *)watched->result)->count == 0 && watched->gap);
    bs_watch_free(watch);
}

/** Rule: without a daemon at the start it fails; after the client was closed too. */
TEST(following_ends_with_its_client) {
    struct daemon daemon = daemon_start("");
    bs_client *none = client_with((bs_client_options){.data_dir = temporary_directory(), .timeout_ms = 50});
    bs_changes *changes;
    bs_watch *watch;
    const bs_item_change *change;
    const bs_watched *watched;
    CHECK_CODE(none, BS_OK, bs_changes_open(none, NULL, &changes));
    CHECK_CODE(none, BS_UNAVAILABLE, bs_changes_next(changes, &change, LONG_MS));
    bs_changes_free(changes);
    bs_client *client = client_of(daemon.data_dir);
    CHECK_CODE(client, BS_OK, bs_changes_open(client, &(bs_changes_options){.after = "now"}, &changes));
    CHECK(bs_changes_cursor(changes) == NULL);
    for (int turns = 0; bs_changes_cursor(changes) == NULL; turns++) {
        CHECK_CODE(client, BS_OK, bs_changes_next(changes, &change, LONG_MS / 100));
        CHECK(change == NULL && turns < 100);
    }
    CHECK_CODE(client, BS_OK, bs_get_current_user_watch(client, &watch));
    CHECK_CODE(client, BS_OK, bs_watch_next(watch, &watched, LONG_MS));
    CHECK(watched->result == NULL);
    bs_close(client);
    CHECK(bs_changes_next(changes, &change, LONG_MS) != BS_OK);
    CHECK(bs_watch_next(watch, &watched, LONG_MS) != BS_OK);
    bs_changes_free(changes);
    bs_watch_free(watch);
}

static json_t *answer_with_a_moon(void *context, json_t *request) {
    (void)context;
    if (strcmp(json_string_value(json_object_get(request, "type")), "ping") == 0) {
        return ok_reply(request, json_pack("{s:b}", "pong", 1));
    }
    return ok_reply(
        request, json_pack(
                     "{s:[{s:i, s:i, s:s, s:s, s:s, s:{s:s}}], s:s, s:b}", "changes", "seq", 1, "at", 1, "requestId",
                     "x", "noun", "moon", "id", "m", "value", "phase", "full", "cursor", "c", "more", 0));
}

/** Rule: a change of a later noun keeps what it has. */
TEST(a_change_of_a_later_noun_keeps_what_it_has) {
    struct fake *fake = fake_start(format("ipc://%s/f", temporary_directory()), answer_with_a_moon, NULL);
    bs_client *client = client_with((bs_client_options){.endpoint = fake_endpoint(fake), .timeout_ms = LONG_MS});
    bs_changes *changes;
    CHECK_CODE(client, BS_OK, bs_changes_open(client, NULL, &changes));
    const bs_item_change *change = next(client, changes);
    CHECK(bs_text_is(change->noun, "moon") && strcmp(change->value.data, "{\"phase\":\"full\"}") == 0);
    CHECK(change->message == NULL);
    bs_changes_free(changes);
}
