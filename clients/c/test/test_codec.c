/** Bytes that are no reply, and memory that there is not: neither does harm. */

#include "../src/codec.h"
#include "../src/json.h"
#include "../src/pending.h"
#include "tests.h"

enum { MUTATIONS = 20000, MUTATIONS_LONG = 2000000 };

static uint32_t state = 12345;

static uint32_t draw(uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
}

/** A reply with much in it. */
static struct buffer reply_bytes(void) {
    static const char REPLY[] = "{\"id\":\"1\",\"ok\":true,\"seq\":7,\"result\":{\"messages\":[{\"id\":\"m\","
                                "\"roomId\":\"r\",\"content\":\"x\","
                                "\"timestamp\":1,\"isDeleted\":false,\"later\":[1,{\"a\":null}],\"metadata\":{\"z\":[1,"
                                "1.5,true,{\"y\":\"é\"}]},"
                                "\"reactions\":[{\"messageId\":\"m\",\"oderId\":\"b\",\"emoji\":\"👋\",\"timestamp\":3}]"
                                ",\"mentions\":[\"a\",\"b\"]}],"
                                "\"hasOlder\":true,\"hasNewer\":false,\"olderCursor\":\"c\"}}";
    struct buffer bytes = {0};
    CHECK(bsi_json_read(REPLY, strlen(REPLY), &bytes, &bsi_payload_path) == NULL);
    return bytes;
}

/** Have the machine read a reply to `get-message-page`. */
static void read_reply(const uint8_t *bytes, size_t size) {
    const struct operation *operation = bsi_operation_of("get-message-page");
    struct pending *pending = calloc(1, sizeof *pending);
    CHECK(pending != NULL);
    bsi_pending_init(pending);
    struct buffer payload = {0}, body = {0};
    bsi_pack_map(&payload, 0);
    struct envelope envelope = {.timeout_ms = 1, .request_id = "1", .result = &operation->result};
    struct call *call;
    CHECK(bsi_call_new(pending, operation->name, operation, &payload, &envelope, &call) == NULL);
    CHECK(bsi_pending_add(pending, call) == NULL && bsi_pending_mark_sent(pending, call, 0, NULL, &body));
    bs_error *error = bsi_pending_handle_reply(pending, bytes, size, 0);
    if (error != NULL) CHECK(error->code == BS_INTERNAL);
    bsi_error_free(error);
    bsi_buffer_free(&body);
    bsi_pending_free(pending);
    free(pending);
}

/** Rule: whatever a daemon sends, cut off, changed or at random, is a reply or an error. */
TEST(decoding_takes_any_bytes) {
    struct buffer whole = reply_bytes();
    uint8_t changed[2048];
    CHECK(whole.size < sizeof changed);
    for (size_t size = 0; size <= whole.size; size++) {
        uint8_t *exact = malloc(size + 1); // so that a sanitizer sees whatever reads beyond it
        CHECK(exact != NULL);
        memcpy(exact, whole.data, size);
        read_reply(exact, size);
        free(exact);
    }
    printf("seed %u\n", (unsigned)state);
    int mutations = is_long() ? MUTATIONS_LONG : MUTATIONS;
    for (int mutation = 0; mutation < mutations; mutation++) {
        memcpy(changed, whole.data, whole.size);
        for (uint32_t times = 1 + draw(4); times > 0; times--) changed[draw((uint32_t)whole.size)] = (uint8_t)draw(256);
        if (draw(4) == 0) {
            for (uint32_t at = 0; at < 40; at++) changed[at] = (uint8_t)draw(256);
        }
        read_reply(changed, draw(8) == 0 ? draw((uint32_t)whole.size) : whole.size);
    }
    bsi_buffer_free(&whole);
}

/** Rule: arrays that claim to be huge, and values that are nested without end, take neither memory nor stack. */
TEST(decoding_is_bounded) {
    struct buffer body = {0};
    static const uint8_t HUGE[] = {0x83, 0xa2, 'i', 'd', 0xa1, '1',  0xa2, 'o',  'k',  0xc3, 0xa6,
                                   'r',  'e',  's', 'u', 'l',  't',  0x81, 0xa8, 'm',  'e',  's',
                                   's',  'a',  'g', 'e', 's',  0xdd, 0xff, 0xff, 0xff, 0xff};
    read_reply(HUGE, sizeof HUGE);
    enum { LEVELS = 1000000 };
    uint8_t *deep = bsi_buffer_extend(&body, LEVELS + 1);
    memset(deep, 0x91, LEVELS);
    deep[LEVELS] = 0xc0;
    read_reply(body.data, body.size);
    struct reader reader = {body.data, body.data + body.size};
    struct buffer json = {0};
    CHECK(!bsi_json_write(&reader, &json));
    bsi_buffer_free(&json);
    memset(deep, '[', LEVELS);
    bs_error *error = bsi_json_read((const char *)deep, LEVELS, &json, &bsi_payload_path);
    CHECK(error != NULL && error->code == BS_INVALID);
    bsi_error_free(error);
    bsi_buffer_free(&json);
    bsi_buffer_free(&body);
}

/** Rule: JSON that is read and written again is the same value, and what is no JSON is refused. */
TEST(json_keeps_what_it_is) {
    static const char *const SAME[] = {
        "{\"a\":[1,-1,1.0,-0.0,0.1,1e+300,4.94065645841247e-324,9223372036854775807,-9223372036854775808,"
        "18446744073709551615]}",
        "[\"\\u0000\\u001f\\\"\\\\é👋\",\"\",null,true,false,{},[]]"};
    static const char *const NONE[] = {
        "",    "{",      "[1,]",    "{\"a\"}",     "{\"a\":1,}",         "01",    "1.",    "-",     "+1", ".5", "1e",
        "nul", "\"\n\"", "\"\\x\"", "\"\\u12g4\"", "\"\\ud800\\u0041\"", "\"abc", "[1 2]", "{1:2}", "1 1"};
    for (size_t at = 0; at < sizeof SAME / sizeof *SAME; at++) {
        struct buffer msgpack = {0}, json = {0};
        CHECK(bsi_json_read(SAME[at], strlen(SAME[at]), &msgpack, &bsi_payload_path) == NULL);
        struct reader reader = {msgpack.data, msgpack.data + msgpack.size};
        CHECK(
            bsi_json_write(&reader, &json) && json.size == strlen(SAME[at]) && !memcmp(json.data, SAME[at], json.size));
        bsi_buffer_free(&msgpack);
        bsi_buffer_free(&json);
    }
    for (size_t at = 0; at < sizeof NONE / sizeof *NONE; at++) {
        struct buffer msgpack = {0};
        bs_error *error = bsi_json_read(NONE[at], strlen(NONE[at]), &msgpack, &bsi_payload_path);
        if (error == NULL) fail(__FILE__, __LINE__, "%s is taken for JSON", NONE[at]);
        bsi_error_free(error);
        bsi_buffer_free(&msgpack);
    }
}

/** Rule: text that is not UTF-8 is no result, whether a field of its own or inside of free JSON. */
TEST(decoding_takes_only_utf8) {
    static const struct result_type TYPES[] = {{KIND_TEXT, false, NULL}, {KIND_JSON, false, NULL}};
    static const uint8_t TEXT[] = {0xa2, 'x', 0xff}, NAME[] = {0x81, 0xa1, 0xff, 0x01};
    const struct reader results[] = {{TEXT, TEXT + sizeof TEXT}, {NAME, NAME + sizeof NAME}};
    for (size_t at = 0; at < 3; at++) {
        struct reader reader = results[at / 2];
        void *result;
        bs_error *error = bsi_decode_result(&reader, &TYPES[at > 0], &result);
        CHECK(error != NULL && error->code == BS_INTERNAL && result == NULL);
        bsi_error_free(error);
    }
}

/** Rule: an error names the place in free JSON, also where a name is empty. */
TEST(json_errors_name_the_place) {
    static const char WRONG[] = "{\"a\":[0,{\"\":{\"b\":x}}]}";
    struct buffer msgpack = {0};
    bs_error *error = bsi_json_read(WRONG, strlen(WRONG), &msgpack, &bsi_payload_path);
    CHECK(error != NULL && strcmp(error->path, "$.payload.a[1]..b") == 0);
    bsi_error_free(error);
    bsi_buffer_free(&msgpack);
}

/* Memory that there is not: this program's `malloc` and so on are wrapped, see tests.mk. */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

/** How many more allocations succeed; negative is all. */
static long allocations = -1;

static bool fails(void) {
    if (allocations < 0) return false;
    if (allocations == 0) return true;
    allocations--;
    return false;
}

void *__wrap_malloc(size_t size) {
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size) {
    return fails() ? NULL : __real_realloc(memory, size);
}

/** Send a request and read its reply without I/O; whether there was memory for all of it. */
static bool exchange(const struct buffer *reply) {
    static struct pending pending;
    static const bs_get_message_page_payload PAYLOAD = {.room_id = BS_TEXT("r")};
    const struct operation *operation = bsi_operation_of("get-message-page");
    pending = (struct pending){0};
    bsi_pending_init(&pending);
    struct buffer payload = {0}, body = {0};
    struct envelope envelope = {.timeout_ms = 1, .request_id = "1", .scope = "s", .result = &operation->result};
    struct call *call = NULL;
    bs_error *error = bsi_encode_record(&payload, operation->payload, &PAYLOAD, &bsi_payload_path);
    if (error == NULL)
        error = bsi_call_new(&pending, operation->name, operation, &payload, &envelope, &call);
    else
        bsi_buffer_free(&payload);
    if (error == NULL) error = bsi_pending_add(&pending, call);
    if (error != NULL) bsi_call_free(call);
    bool is_sent = error == NULL && bsi_pending_mark_sent(&pending, call, 0, NULL, &body);
    if (is_sent) error = bsi_pending_handle_reply(&pending, reply->data, reply->size, 0);
    struct call *settled = bsi_pending_take_settled(&pending);
    bool has_memory = is_sent && error == NULL && settled != NULL && settled->error == NULL;
    if (error != NULL) CHECK(error->code == BS_NO_MEMORY);
    if (settled != NULL && settled->error != NULL) CHECK(settled->error->code == BS_NO_MEMORY);
    bsi_error_free(error);
    bsi_call_free(settled);
    bsi_buffer_free(&body);
    bsi_pending_free(&pending);
    return has_memory;
}

/** Rule: wherever memory ends, the request ends with `BS_NO_MEMORY`, and nothing leaks. */
TEST(without_memory_a_request_says_so) {
    struct buffer reply = reply_bytes();
    long most = 0;
    for (bool has_memory = false; !has_memory; most++) {
        allocations = most;
        has_memory = exchange(&reply);
        allocations = -1;
        CHECK(most < 1000);
    }
    CHECK(most > 10);
    bsi_buffer_free(&reply);
}
