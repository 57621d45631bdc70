/** Files of several parts, from and into streams. */

#include <unistd.h>

#include "tests.h"

enum { BYTES = 9 * 1024 * 1024 + 7, PIECE = 100000 };

/** A file in memory that is read in pieces. */
struct source {
    const uint8_t *bytes;
    size_t size;
    size_t at;
    bool fails;
};

static ptrdiff_t read_piece(void *context, void *buffer, size_t size) {
    struct source *source = context;
    if (source->fails && source->at > source->size / 2) return -1;
    size_t left = source->size - source->at, piece = left < PIECE ? left : PIECE;
    if (piece > size) piece = size;
    memcpy(buffer, source->bytes + source->at, piece);
    source->at += piece;
    return (ptrdiff_t)piece;
}

static uint8_t *noise(void) {
    uint8_t *bytes = malloc(BYTES);
    CHECK(bytes != NULL);
    uint32_t state = 1;
    for (size_t at = 0; at < BYTES; at++) bytes[at] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    return bytes;
}

/** What takes a file, and restarts the daemon in between. */
struct sink {
    const uint8_t *bytes;
    size_t at;
    struct daemon *restarted;
    bool fails;
};

static bool compare_piece(void *context, const void *data, size_t size) {
    struct sink *sink = context;
    if (sink->fails) return false;
    CHECK(sink->at + size <= BYTES && memcmp(sink->bytes + sink->at, data, size) == 0);
    sink->at += size;
    if (sink->restarted != NULL) daemon_restart(sink->restarted);
    sink->restarted = NULL;
    return true;
}

/** Rule: a file of several parts goes up in pieces, and comes down as it was, also over a restart. */
TEST(a_file_of_several_parts_goes_up_and_down) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    uint8_t *bytes = noise();
    struct source source = {.bytes = bytes, .size = BYTES};
    bs_media *media, *same;
    CHECK_CODE(client, BS_OK, bs_upload(client, read_piece, &source, "image/png", "ada", &media));
    CHECK(media->size == BYTES && media->parts == 3 && bs_text_is(media->uploader_id, "ada"));
    source.at = 0;
    CHECK_CODE(client, BS_OK, bs_upload(client, read_piece, &source, "image/png", NULL, &same));
    CHECK(strcmp(same->id.data, media->id.data) == 0);
    struct sink sink = {.bytes = bytes, .restarted = &daemon};
    CHECK_CODE(client, BS_OK, bs_download(client, media->id.data, compare_piece, &sink));
    CHECK(sink.at == BYTES);
    sink.fails = true;
    CHECK_CODE(client, BS_ABORTED, bs_download(client, media->id.data, compare_piece, &sink));
    source = (struct source){.bytes = bytes, .size = BYTES, .fails = true};
    CHECK_CODE(client, BS_ABORTED, bs_upload(client, read_piece, &source, "image/png", NULL, NULL));
    CHECK_CODE(client, BS_OK, bs_ping(client, NULL, NULL));
    bs_free(media);
    bs_free(same);
    free(bytes);
}

/** Rule: streams of C go up and down; an empty file is one, an unknown one is not found. */
TEST(a_stream_goes_up_and_down) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    FILE *file = tmpfile(), *copy = tmpfile();
    bs_media *media;
    CHECK(file != NULL && copy != NULL);
    CHECK_CODE(client, BS_OK, bs_upload_file(client, file, "text/plain", NULL, &media));
    CHECK(media->size == 0 && media->parts == 1);
    bs_free(media);
    fputs("hello", file);
    rewind(file);
    CHECK_CODE(client, BS_OK, bs_upload_file(client, file, "text/plain", NULL, &media));
    CHECK_CODE(client, BS_OK, bs_download_file(client, media->id.data, copy));
    char text[16] = "";
    rewind(copy);
    CHECK(fread(text, 1, sizeof text, copy) == 5 && strcmp(text, "hello") == 0);
    CHECK_CODE(client, BS_NOT_FOUND, bs_download_file(client, "none", copy));
    rewind(file);
    CHECK_CODE(client, BS_INVALID, bs_upload_file(client, file, "text/plain", "", NULL));
    bs_free(media);
    fclose(file);
    fclose(copy);
}

static json_t *answer_with_damage(void *context, json_t *request) {
    (void)context;
    json_t *media = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i}", "id", "m", "sha256", "00", "mime", "text/plain", "size", 1, "parts", 0,
        "createdAt", 1);
    return ok_reply(request, media);
}

/** Rule: bytes that are not those that were put are an error at the end. */
TEST(damage_is_noticed) {
    struct fake *fake = fake_start(format("ipc://%s/f", temporary_directory()), answer_with_damage, NULL);
    bs_client *client = client_with((bs_client_options){.endpoint = fake_endpoint(fake), .timeout_ms = LONG_MS});
    struct sink sink = {.bytes = NULL};
    CHECK_CODE(client, BS_STORAGE, bs_download(client, "m", compare_piece, &sink));
    CHECK_HAS(bs_last_error(client)->message, "does not have the same bytes as the file");
}
