/**
 * Following the feed: what to ask next, and what to give the caller.
 *
 * One question is asked at a time: nothing is queued for a slow caller. The first question shows whether a daemon answers:
 * its errors are the caller's. From then on the daemon is waited for, however long it is away. Nothing is lost with a
 * connection, because the daemon pushes nothing: whatever happened, the next question has the same cursor.
 */

#include <stdlib.h>
#include <string.h>

#include "client.h"

/** How long one question waits for a change. */
enum { WAIT_MS = 30000 };
#define PAUSE (20 * MS)
#define PAUSE_MAX (1000 * MS)

/** What came of asking. */
enum answer { ANSWERED, TIMED_OUT, FAILED };

/** A question, asked until it is answered; longer pauses follow questions that brought nothing, until one does. */
struct asking {
    bs_client *client;
    const struct operation *operation; /**< NULL if there is no question. */
    struct buffer payload;
    bool is_first; /**< Its errors are the caller's. */
    bs_ticket ticket;
    struct waiting waiting;
    int64_t begun;
    int64_t resume_at; /**< When to ask. */
    int64_t retry_pause;
    int64_t empty_pause;
};

/** Ask from now on. The payload's bytes are taken over. */
static void ask(struct asking *asking, const struct operation *operation, struct buffer *payload) {
    asking->operation = operation;
    asking->payload = *payload;
    asking->begun = bsi_now();
    asking->retry_pause = PAUSE;
}

/** Ask with a struct. */
static bs_error *ask_with(struct asking *asking, const char *type, const void *payload) {
    const struct operation *operation = bsi_operation_of(type);
    struct buffer encoded = {0};
    bs_error *error = bsi_encode_record(&encoded, operation->payload, payload, &bsi_payload_path);
    if (error == NULL)
        ask(asking, operation, &encoded);
    else
        bsi_buffer_free(&encoded);
    return error;
}

static bs_error *send_question(struct asking *asking) {
    struct buffer copy = {0};
    bsi_buffer_append(&copy, asking->payload.data, asking->payload.size);
    asking->waiting = (struct waiting){0};
    const struct operation *operation = asking->operation;
    asking->ticket = bsi_send_encoded(
        asking->client, operation->name, operation, &operation->result, &copy, NULL, bsi_arrived, &asking->waiting);
    return asking->ticket == 0 ? bsi_error_copy(asking->client->error) : NULL;
}

static bool may_pass(const struct asking *asking, const bs_error *error) {
    bool passes = error->retryable || error->code == BS_NO_REPLY;
    return passes && !asking->is_first && !asking->client->pending.is_closed;
}

/** Ask again after a pause, unless the error is one that waiting does not end; then it is the client's. */
static bool ask_again(struct asking *asking, bs_error *error) {
    if (!may_pass(asking, error)) {
        bsi_fail(asking->client, error);
        return false;
    }
    bsi_error_free(error);
    asking->resume_at = bsi_now() + asking->retry_pause;
    asking->retry_pause = 2 * asking->retry_pause < PAUSE_MAX ? 2 * asking->retry_pause : PAUSE_MAX;
    return true;
}

/** Wait for the answer to the question; the result is the caller's. */
static enum answer await_answer(struct asking *asking, int64_t until, void **result) {
    bs_error *forked = bsi_check_process(asking->client);
    if (forked != NULL) {
        bsi_fail(asking->client, forked);
        return FAILED;
    }
    for (;;) {
        if (asking->ticket != 0 && asking->waiting.is_done) {
            asking->ticket = 0;
            if (asking->waiting.error == NULL) break;
            if (!ask_again(asking, asking->waiting.error)) return FAILED;
        }
        int64_t now = bsi_now();
        if (asking->ticket == 0 && now >= asking->resume_at) {
            bs_error *error = send_question(asking);
            if (error != NULL && !ask_again(asking, error)) return FAILED;
        }
        int64_t wake_at = asking->ticket == 0 && asking->resume_at < until ? asking->resume_at : until;
        (void)bsi_turn(asking->client, wake_at);
        bool is_answered = asking->ticket != 0 && asking->waiting.is_done;
        if (!is_answered && bsi_now() >= until) return TIMED_OUT;
    }
    *result = asking->waiting.result;
    bsi_buffer_free(&asking->payload);
    asking->operation = NULL;
    asking->is_first = false;
    return ANSWERED;
}

/** Where an empty page came long before its time, the daemon has too many that wait: pause before the next one. */
static void note_page(struct asking *asking, const bs_change_page *page) {
    bool came_early = bsi_now() - asking->begun <= WAIT_MS * MS / 2;
    if (came_early && page->changes.count == 0 && !page->more && !page->gap) {
        asking->resume_at = bsi_now() + asking->empty_pause;
        asking->empty_pause = 2 * asking->empty_pause < PAUSE_MAX ? 2 * asking->empty_pause : PAUSE_MAX;
    } else {
        asking->empty_pause = PAUSE;
    }
}

static void asking_init(struct asking *asking, bs_client *client) {
    *asking = (struct asking){.client = client, .is_first = true, .empty_pause = PAUSE};
}

static void asking_free(struct asking *asking) {
    if (asking->ticket != 0 && !asking->waiting.is_done) bs_cancel(asking->client, asking->ticket);
    if (asking->ticket != 0 && asking->waiting.is_done) {
        bsi_error_free(asking->waiting.error);
        bs_free(asking->waiting.result);
    }
    bsi_buffer_free(&asking->payload);
}

/** Replace a string by a copy of a text; false if there is no memory. */
static bool keep_text(char **target, bs_text text) {
    char *copy = malloc(text.size + 1);
    if (copy == NULL) return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    free(*target);
    *target = copy;
    return true;
}

/** What to ask `get-changes` for, with copies of strings; the texts are what `rooms` and `nouns` point to. */
struct filter {
    bs_text *rooms;
    bs_text *nouns;
    bs_get_changes_payload query;
};

/** Copy strings that are ended by NULL; false if there is no memory. */
static bool copy_strings(const char *const *strings, bs_text **texts, bs_text_array *array) {
    while (strings[array->count] != NULL) array->count++;
    *texts = calloc(array->count + 1, sizeof **texts);
    if (*texts == NULL) return false;
    array->items = *texts;
    for (size_t at = 0; at < array->count; at++) {
        char *copy = NULL;
        if (!keep_text(&copy, bs_text_of(strings[at]))) return false;
        (*texts)[at] = bs_text_of(copy);
    }
    return true;
}

static void free_texts(bs_text *texts) {
    for (bs_text *each = texts; each != NULL && each->data != NULL; each++) free((char *)(uintptr_t)each->data);
    free(texts);
}

static void filter_free(struct filter *filter) {
    free_texts(filter->rooms);
    free_texts(filter->nouns);
}

enum changes_step { CHANGES_PING, CHANGES_NOW, CHANGES_PAGE, CHANGES_GIVE, CHANGES_ENDED };

struct bs_changes {
    struct asking asking;
    struct filter filter;
    enum changes_step step;
    bool begins_now;
    bool is_at_page_end;
    char *cursor;
    bs_change_page *page;
    size_t given; /**< How many changes of the page were given out. */
};

bs_code bs_changes_open(bs_client *client, const bs_changes_options *options, bs_changes **opened) {
    static const bs_changes_options DEFAULTS;
    const bs_changes_options *own = options != NULL ? options : &DEFAULTS;
    bs_changes *changes = *opened = calloc(1, sizeof *changes);
    if (changes == NULL) return bsi_fail(client, bsi_no_memory);
    asking_init(&changes->asking, client);
    changes->is_at_page_end = true;
    changes->begins_now = own->after != NULL && strcmp(own->after, "now") == 0;
    bs_get_changes_payload *query = &changes->filter.query;
    query->has_wait_ms = true;
    query->wait_ms = WAIT_MS;
    query->has_values = own->without_values;
    query->has_limit = own->limit != 0;
    query->limit = own->limit;
    query->has_rooms = own->rooms != NULL;
    query->has_nouns = own->nouns != NULL;
    bool is_copied = own->rooms == NULL || copy_strings(own->rooms, &changes->filter.rooms, &query->rooms);
    if (own->nouns != NULL) is_copied = is_copied && copy_strings(own->nouns, &changes->filter.nouns, &query->nouns);
    if (own->after != NULL && !changes->begins_now) {
        is_copied = is_copied && keep_text(&changes->cursor, bs_text_of(own->after));
    }
    if (is_copied) return BS_OK;
    bs_changes_free(changes);
    *opened = NULL;
    return bsi_fail(client, bsi_no_memory);
}

void bs_changes_free(bs_changes *changes) {
    if (changes == NULL) return;
    asking_free(&changes->asking);
    filter_free(&changes->filter);
    free(changes->cursor);
    bs_free(changes->page);
    free(changes);
}

const char *bs_changes_cursor(const bs_changes *changes) {
    return changes->cursor;
}

bool bs_changes_at_page_end(const bs_changes *changes) {
    return changes->is_at_page_end;
}

/** Ask the question of this step. */
static bs_error *ask_for_changes(bs_changes *changes) {
    if (changes->step == CHANGES_PING) return ask_with(&changes->asking, "ping", NULL);
    if (changes->step == CHANGES_NOW) {
        bs_get_changes_payload query = {.after = BS_TEXT("now")};
        return ask_with(&changes->asking, "get-changes", &query);
    }
    changes->filter.query.after = bs_text_of(changes->cursor);
    return ask_with(&changes->asking, "get-changes", &changes->filter.query);
}

static bs_code gap(bs_client *client, const bs_change_page *page) {
    bs_error *error = bsi_error(
        BS_FEED_GAP, NULL,
        "the cursor belongs to another history of this scope, because its files were restored from a copy or it was "
        "deleted: read everything anew, and then open the changes again after the error's `cursor`");
    bs_error named = *error;
    named.cursor = page->cursor.data;
    bs_error *whole = error == bsi_no_memory ? error : bsi_error_copy(&named); // which owns its cursor
    bsi_error_free(error);
    return bsi_fail(client, whole);
}

/** Go on with the answer to the question of this step; it takes the result over. */
static bs_code advance_changes(bs_changes *changes, void *result) {
    bs_client *client = changes->asking.client;
    if (changes->step == CHANGES_PING) {
        bs_free(result);
        changes->step = changes->begins_now ? CHANGES_NOW : CHANGES_PAGE;
        return BS_OK;
    }
    bs_change_page *page = result;
    if (changes->step == CHANGES_NOW) {
        bool is_kept = keep_text(&changes->cursor, page->cursor);
        bs_free(page);
        changes->step = CHANGES_PAGE;
        return is_kept ? BS_OK : bsi_fail(client, bsi_no_memory);
    }
    if (page->gap) {
        bs_code code = gap(client, page);
        bs_free(page);
        return code;
    }
    note_page(&changes->asking, page);
    bs_free(changes->page);
    changes->page = page;
    changes->given = 0;
    changes->step = CHANGES_GIVE;
    return BS_OK;
}

/** Give out the next change of the page; false if there is none. */
static bool give_change(bs_changes *changes, const bs_item_change **change) {
    const bs_change_page *page = changes->page;
    bool has_one = changes->given < page->changes.count;
    if (has_one) *change = &page->changes.items[changes->given++];
    changes->is_at_page_end = changes->given == page->changes.count;
    // Without memory for it the cursor stays at an earlier place, from which nothing is missed.
    if (changes->is_at_page_end && !keep_text(&changes->cursor, page->cursor)) changes->is_at_page_end = false;
    if (!has_one) changes->step = CHANGES_PAGE;
    return has_one;
}

bs_code bs_changes_next(bs_changes *changes, const bs_item_change **change, int timeout_ms) {
    int64_t until = bsi_until(timeout_ms);
    bs_client *client = changes->asking.client;
    *change = NULL;
    for (;;) {
        if (changes->step == CHANGES_ENDED) {
            return bsi_fail(client, bsi_error(BS_INVALID, NULL, "these changes have ended: open others"));
        }
        if (changes->step == CHANGES_GIVE && give_change(changes, change)) return BS_OK;
        if (changes->asking.operation == NULL) {
            bs_error *error = ask_for_changes(changes);
            if (error != NULL) return bsi_fail(client, error);
        }
        void *result;
        enum answer answer = await_answer(&changes->asking, until, &result);
        if (answer == TIMED_OUT) return BS_OK;
        bs_code code = answer == FAILED ? client->error->code : advance_changes(changes, result);
        if (code == BS_OK) continue;
        changes->step = CHANGES_ENDED;
        return code;
    }
}

/* Watching a query. */

enum watch_step {
    WATCH_PING,
    WATCH_NOW,   /**< Find the end of the feed; first, so that what changes while the query is answered is asked for. */
    WATCH_QUERY, /**< Ask the query. */
    WATCH_PAGE,  /**< Wait for a change. */
    WATCH_JUMP,  /**< There are many: find the end of the feed … */
    WATCH_CHECK, /**< … and whether the old cursor still fits, which shows that this is no gap. */
    WATCH_ENDED,
};

struct bs_watch {
    struct asking asking;
    const struct operation *operation;
    struct buffer payload;
    bs_get_changes_payload question;
    bs_text *nouns;
    char *room;
    bs_text room_text;
    enum watch_step step;
    char *cursor;
    char *end; /**< Of the feed, while it is checked whether there is a gap. */
    bool gap;
    int64_t newest;
    struct buffer given; /**< The result that was given out, encoded. */
    bs_watched watched;
    void *result;
};

/** Whether all kinds of items that a query reads are in rooms. */
static bool reads_in_rooms(const struct operation *operation) {
    static const char *const IN_ROOMS[] = {"message", "room", "member", "ban"};
    for (const char *const *noun = operation->reads; noun != NULL && *noun != NULL; noun++) {
        bool is_in_rooms = false;
        for (size_t at = 0; at < COUNT_OF(IN_ROOMS); at++) is_in_rooms = is_in_rooms || !strcmp(*noun, IN_ROOMS[at]);
        if (!is_in_rooms) return false;
    }
    return operation->reads != NULL;
}

/** Set up which changes tell that the result of the query may be another one now; false if there is no memory. */
static bool set_question(bs_watch *watch) {
    struct reader payload = {watch->payload.data, watch->payload.data + watch->payload.size}, found;
    struct token token;
    bs_get_changes_payload *question = &watch->question;
    question->has_values = true;
    question->has_wait_ms = true;
    question->wait_ms = WAIT_MS;
    question->has_nouns = watch->operation->reads != NULL;
    if (question->has_nouns && !copy_strings(watch->operation->reads, &watch->nouns, &question->nouns)) return false;
    bool has_room = bsi_find(payload, "roomId", &found) && bsi_read(&found, &token) && token.type == TOKEN_TEXT;
    if (!has_room || !reads_in_rooms(watch->operation)) return true;
    if (!keep_text(&watch->room, (bs_text){(const char *)token.data, token.size})) return false;
    watch->room_text = (bs_text){watch->room, token.size};
    question->has_rooms = true;
    question->rooms = (bs_text_array){&watch->room_text, 1};
    return true;
}

bs_code bsi_watch(bs_client *client, const struct operation *operation, const void *payload, bs_watch **opened) {
    bs_watch *watch = *opened = calloc(1, sizeof *watch);
    if (watch == NULL) return bsi_fail(client, bsi_no_memory);
    asking_init(&watch->asking, client);
    watch->operation = operation;
    bs_error *error = bsi_encode_record(&watch->payload, operation->payload, payload, &bsi_payload_path);
    if (error == NULL && !set_question(watch)) error = bsi_no_memory;
    if (error == NULL) return BS_OK;
    bs_watch_free(watch);
    *opened = NULL;
    return bsi_fail(client, error);
}

void bs_watch_free(bs_watch *watch) {
    if (watch == NULL) return;
    asking_free(&watch->asking);
    bsi_buffer_free(&watch->payload);
    bsi_buffer_free(&watch->given);
    free_texts(watch->nouns);
    free(watch->room);
    free(watch->cursor);
    free(watch->end);
    bs_free(watch->result);
    free(watch);
}

/** Ask the question of this step. */
static bs_error *ask_for_watch(bs_watch *watch) {
    bs_get_changes_payload now = {.after = BS_TEXT("now")}, check = watch->question;
    switch (watch->step) {
    case WATCH_PING:
        return ask_with(&watch->asking, "ping", NULL);
    case WATCH_NOW:
    case WATCH_JUMP:
        return ask_with(&watch->asking, "get-changes", &now);
    case WATCH_PAGE:
        watch->question.after = bs_text_of(watch->cursor);
        return ask_with(&watch->asking, "get-changes", &watch->question);
    case WATCH_CHECK:
        check.after = bs_text_of(watch->cursor);
        check.has_wait_ms = false;
        check.wait_ms = 0;
        check.has_limit = true;
        check.limit = 1;
        return ask_with(&watch->asking, "get-changes", &check);
    default: {
        struct buffer copy = {0};
        bsi_buffer_append(&copy, watch->payload.data, watch->payload.size);
        ask(&watch->asking, watch->operation, &copy);
        return NULL;
    }
    }
}

/** Take a result that the query has now; whether it is another one than was given out. */
static bs_code take_result(bs_watch *watch, bool *is_new) {
    bs_client *client = watch->asking.client;
    int64_t seq = watch->asking.waiting.seq;
    void *result = watch->asking.waiting.result;
    // Requests are answered in order, so only another history has a lower number.
    if (seq < watch->newest) watch->gap = true;
    watch->newest = seq;
    struct buffer encoded = {0};
    bs_error *error = bsi_encode_value(&encoded, &watch->operation->result, result, &bsi_payload_path);
    if (error != NULL || encoded.failed) {
        bsi_buffer_free(&encoded);
        bs_free(result);
        return bsi_fail(client, error != NULL ? error : bsi_no_memory);
    }
    bool is_same = encoded.size == watch->given.size && memcmp(encoded.data, watch->given.data, encoded.size) == 0;
    *is_new = watch->gap || !is_same;
    if (*is_new) {
        bsi_buffer_free(&watch->given);
        bs_free(watch->result);
        watch->given = encoded;
        watch->result = result;
        watch->watched = (bs_watched){result, seq, watch->gap};
    } else {
        bsi_buffer_free(&encoded);
        bs_free(result);
    }
    watch->step = WATCH_PAGE;
    return BS_OK;
}

/** Go on with a page of changes; false if there is no memory. */
static bool take_page(bs_watch *watch, const bs_change_page *page) {
    if (watch->step == WATCH_JUMP) {
        watch->step = WATCH_CHECK;
        return keep_text(&watch->end, page->cursor);
    }
    if (watch->step == WATCH_CHECK) {
        watch->gap = page->gap;
        watch->step = WATCH_QUERY;
        return keep_text(&watch->cursor, page->gap ? page->cursor : bs_text_of(watch->end));
    }
    if (watch->step == WATCH_PAGE) {
        note_page(&watch->asking, page);
        watch->gap = page->gap;
    }
    bool has_changed = watch->step == WATCH_NOW || page->gap || page->changes.count > 0;
    watch->step = page->more && !page->gap ? WATCH_JUMP : has_changed ? WATCH_QUERY : WATCH_PAGE;
    return keep_text(&watch->cursor, page->cursor);
}

/** Go on with the answer to the question of this step. */
static bs_code advance_watch(bs_watch *watch, void *result, bool *is_new) {
    if (watch->step == WATCH_QUERY) return take_result(watch, is_new);
    bool has_memory = true;
    if (watch->step == WATCH_PING)
        watch->step = WATCH_NOW;
    else
        has_memory = take_page(watch, result);
    bs_free(result);
    return has_memory ? BS_OK : bsi_fail(watch->asking.client, bsi_no_memory);
}

bs_code bs_watch_next(bs_watch *watch, const bs_watched **watched, int timeout_ms) {
    int64_t until = bsi_until(timeout_ms);
    bs_client *client = watch->asking.client;
    *watched = NULL;
    for (;;) {
        if (watch->step == WATCH_ENDED) {
            return bsi_fail(client, bsi_error(BS_INVALID, NULL, "this watch has ended: open another one"));
        }
        if (watch->asking.operation == NULL) {
            bs_error *error = ask_for_watch(watch);
            if (error != NULL) return bsi_fail(client, error);
        }
        void *result;
        bool is_new = false;
        enum answer answer = await_answer(&watch->asking, until, &result);
        if (answer == TIMED_OUT) return BS_OK;
        bs_code code = answer == FAILED ? client->error->code : advance_watch(watch, result, &is_new);
        if (code != BS_OK) {
            watch->step = WATCH_ENDED;
            return code;
        }
        if (is_new) {
            *watched = &watch->watched;
            return BS_OK;
        }
    }
}
