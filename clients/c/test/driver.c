/**
 * What the benchmark and the tests across languages do with this client.
 *
 *     driver ENDPOINT
 *
 * Each line of standard input is an order, a JSON object; so is the answer to it, on standard output.
 */

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../include/backscroll.h"

enum { TIMEOUT_MS = 60000 };

static bs_client *client;
static json_t *work;

static void stop(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

/** Requests of which so many are in flight at a time. */
struct run {
    bs_ticket (*send)(size_t index, bs_callback callback, void *context);
    size_t count;
    size_t next;
};

static void send_next(struct run *run);

static void replied(void *context, bs_reply *reply) {
    if (reply->code != BS_OK) stop(reply->error->message);
    send_next(context);
}

static void send_next(struct run *run) {
    if (run->next < run->count && run->send(run->next++, replied, run) == 0) stop(bs_last_error(client)->message);
}

/** How long it takes to send all of them with so many in flight. */
static json_t *
timed(bs_ticket (*send)(size_t index, bs_callback callback, void *context), size_t count, json_int_t in_flight) {
    struct run run = {send, count, 0};
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    while (in_flight-- > 0) send_next(&run);
    while (bs_pending(client) > 0) bs_poll(client, -1);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
    return json_pack("{s:f}", "seconds", seconds);
}

static bs_ticket send_ping(size_t index, bs_callback callback, void *context) {
    (void)index;
    return bs_ping_send(client, NULL, callback, context);
}

/** The text under a name; unset if there is none. */
static bs_text text_of(json_t *object, const char *name) {
    json_t *value = json_object_get(object, name);
    return (bs_text){json_string_value(value), json_string_length(value)};
}

/** The JSON under a name as text, which the caller frees; NULL if there is none. */
static char *json_of(json_t *object, const char *name) {
    json_t *value = json_object_get(object, name);
    return value == NULL ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

static bool read_integer(json_t *object, const char *name, int64_t *value) {
    json_t *found = json_object_get(object, name);
    if (json_is_integer(found)) *value = json_integer_value(found);
    return json_is_integer(found);
}

/** Read the reactions of a message; the items are the caller's. */
static bs_reaction_input_array reactions_of(json_t *message) {
    json_t *list = json_object_get(message, "reactions"), *each;
    size_t index;
    bs_reaction_input *reactions = calloc(json_array_size(list) + 1, sizeof *reactions);
    if (reactions == NULL) stop("there is no memory");
    json_array_foreach(list, index, each) {
        bs_reaction_input *reaction = &reactions[index];
        reaction->message_id = text_of(each, "messageId");
        reaction->oder_id = text_of(each, "oderId");
        reaction->emoji = text_of(each, "emoji");
        reaction->id = text_of(each, "id");
        reaction->user_id = text_of(each, "userId");
        reaction->has_timestamp = read_integer(each, "timestamp", &reaction->timestamp);
    }
    return (bs_reaction_input_array){reactions, json_array_size(list)};
}

static bs_ticket send_message(size_t index, bs_callback callback, void *context) {
    json_t *message = json_array_get(json_object_get(work, "messages"), index);
    bs_save_message_payload payload = {
        .message = {
            .id = text_of(message, "id"),
            .room_id = text_of(message, "roomId"),
            .sender_id = text_of(message, "senderId"),
            .content = text_of(message, "content"),
            .channel_id = text_of(message, "channelId"),
            .sender_name = text_of(message, "senderName"),
            .reply_to_id = text_of(message, "replyToId"),
            .has_is_deleted = json_is_true(json_object_get(message, "isDeleted")),
            .is_deleted = json_is_true(json_object_get(message, "isDeleted")),
        }};
    char *metadata = json_of(message, "metadata");
    bs_message_input *own = &payload.message;
    (void)read_integer(message, "timestamp", &own->timestamp);
    own->has_edited_at = read_integer(message, "editedAt", &own->edited_at);
    own->metadata = bs_json_of(metadata);
    own->has_reactions = json_object_get(message, "reactions") != NULL;
    if (own->has_reactions) own->reactions = reactions_of(message);
    bs_ticket ticket = bs_save_message_send(client, &payload, NULL, callback, context);
    free((void *)(uintptr_t)own->reactions.items);
    free(metadata);
    return ticket;
}

static bs_get_message_page_payload newest(json_t *room) {
    return (bs_get_message_page_payload){
        .room_id = {json_string_value(room), json_string_length(room)}, .has_limit = true, .limit = 50};
}

static bs_ticket send_visit(size_t index, bs_callback callback, void *context) {
    bs_get_message_page_payload payload = newest(json_array_get(json_object_get(work, "visits"), index));
    return bs_get_message_page_send(client, &payload, NULL, callback, context);
}

/** The newest messages of each room, as the daemon returns them. */
static json_t *read_back(void) {
    json_t *pages = json_array(), *room;
    size_t index;
    json_array_foreach(json_object_get(work, "rooms"), index, room) {
        char *payload = NULL;
        json_t *query = json_pack("{s:O, s:i}", "roomId", room, "limit", 50), *page;
        bs_json *result;
        payload = json_dumps(query, JSON_COMPACT);
        if (bs_call(client, "get-message-page", bs_json_of(payload), NULL, &result) != BS_OK) {
            stop(bs_last_error(client)->message);
        }
        page = json_loadb(result->data, result->size, JSON_ALLOW_NUL, NULL);
        json_array_append(pages, json_object_get(page, "messages"));
        json_decref(page);
        json_decref(query);
        free(payload);
        bs_free(result);
    }
    return json_pack("{s:o}", "pages", pages);
}

static json_t *carry_out(json_t *order) {
    const char *what = json_string_value(json_object_get(order, "do"));
    json_int_t in_flight = json_integer_value(json_object_get(order, "inFlight"));
    if (what == NULL) stop("an order has `do`");
    if (strcmp(what, "load") == 0) {
        json_decref(work);
        work = json_load_file(json_string_value(json_object_get(order, "path")), JSON_ALLOW_NUL, NULL);
        if (work == NULL) stop("the file cannot be read");
        return json_object();
    }
    if (strcmp(what, "ping") == 0) {
        return timed(send_ping, (size_t)json_integer_value(json_object_get(order, "count")), 1);
    }
    if (strcmp(what, "save") == 0)
        return timed(send_message, json_array_size(json_object_get(work, "messages")), in_flight);
    if (strcmp(what, "read") == 0)
        return timed(send_visit, json_array_size(json_object_get(work, "visits")), in_flight);
    if (strcmp(what, "readBack") == 0) return read_back();
    stop("there is no such order");
    return NULL;
}

int main(int argc, char **argv) {
    bs_client_options options = {.endpoint = argc > 1 ? argv[1] : NULL, .timeout_ms = TIMEOUT_MS};
    if (bs_client_new(&options, &client) != BS_OK) stop(bs_last_error(client)->message);
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        json_t *order = json_loads(line, 0, NULL), *answer = carry_out(order);
        char *text = json_dumps(answer, JSON_COMPACT);
        puts(text);
        fflush(stdout);
        free(text);
        json_decref(answer);
        json_decref(order);
    }
    free(line);
    json_decref(work);
    bs_client_free(client);
    return 0;
}
