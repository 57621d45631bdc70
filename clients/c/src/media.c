/** Upload and download of whole files in parts, with only a few parts in memory at a time. */

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

enum { PARTS_IN_FLIGHT = 3 };
/** How long the daemon may take for all, and for each part that it reads again. */
enum { TIMEOUT_MS = 5000, READ_MS_PER_PART = 100 };
enum { SHA256_CHARS = 64 };

/** Parts that were asked for or put, the oldest first. */
struct window {
    bs_client *client;
    struct waiting waiting[PARTS_IN_FLIGHT];
    bs_ticket tickets[PARTS_IN_FLIGHT];
    size_t oldest;
    size_t count;
};

/** Where the next part has its place. */
static size_t next_place(const struct window *window) {
    return (window->oldest + window->count) % PARTS_IN_FLIGHT;
}

/** Wait for the oldest part; the result is the caller's. */
static bs_code take_oldest(struct window *window, void **result) {
    struct waiting *waiting = &window->waiting[window->oldest];
    bsi_wait(window->client, waiting);
    window->oldest = (window->oldest + 1) % PARTS_IN_FLIGHT;
    window->count--;
    *result = waiting->result;
    return waiting->error == NULL ? BS_OK : bsi_fail(window->client, waiting->error);
}

/** Give up what is under way. */
static void abandon(struct window *window) {
    for (; window->count > 0; window->count--, window->oldest = (window->oldest + 1) % PARTS_IN_FLIGHT) {
        struct waiting *waiting = &window->waiting[window->oldest];
        if (!waiting->is_done) bs_cancel(window->client, window->tickets[window->oldest]);
        bsi_error_free(waiting->error);
        bs_free(waiting->result);
    }
}

static bs_code compare(bs_client *client, crypto_hash_sha256_state *state, const bs_media *media) {
    uint8_t digest[crypto_hash_sha256_BYTES];
    char sha256[SHA256_CHARS + 1];
    crypto_hash_sha256_final(state, digest);
    sodium_bin2hex(sha256, sizeof sha256, digest, sizeof digest);
    if (bs_text_is(media->sha256, sha256)) return BS_OK;
    return bsi_fail(
        client, bsi_error(BS_STORAGE, NULL, "media \"%s\" does not have the same bytes as the file", media->id.data));
}

/** A file that is uploaded. */
struct upload {
    struct window window;
    crypto_hash_sha256_state digest;
    uint8_t *buffer;
    char sha256[BS_MEDIA_PARTS_MAX][SHA256_CHARS];
    bs_text parts[BS_MEDIA_PARTS_MAX];
    size_t count; /**< How many parts have been put. */
    size_t sent;
};

/** Fill the buffer; `BS_ABORTED` if that failed. */
static bs_code read_part(bs_client *client, uint8_t *buffer, bs_read read, void *context, size_t *size) {
    *size = 0;
    while (*size < BS_MEDIA_PART_BYTES_MAX) {
        ptrdiff_t got = read(context, buffer + *size, (size_t)BS_MEDIA_PART_BYTES_MAX - *size);
        if (got < 0 || (size_t)got > BS_MEDIA_PART_BYTES_MAX - *size) {
            return bsi_fail(client, bsi_error(BS_ABORTED, NULL, "the file cannot be read"));
        }
        if (got == 0) break;
        *size += (size_t)got;
    }
    return BS_OK;
}

/** Note the hash of the oldest part. */
static bs_code settle_oldest(struct upload *upload) {
    void *result;
    bs_code code = take_oldest(&upload->window, &result);
    const bs_text *sha256 = result;
    if (code == BS_OK && sha256->size == SHA256_CHARS) {
        memcpy(upload->sha256[upload->count], sha256->data, SHA256_CHARS);
        upload->parts[upload->count] = (bs_text){upload->sha256[upload->count], SHA256_CHARS};
        upload->count++;
    } else if (code == BS_OK) {
        code = bsi_fail(upload->window.client, bsi_error(BS_INTERNAL, NULL, "the daemon's result is no SHA-256"));
    }
    bs_free(result);
    return code;
}

static bs_code put_part(struct upload *upload, size_t size) {
    struct window *window = &upload->window;
    bs_client *client = window->client;
    if (upload->sent == BS_MEDIA_PARTS_MAX) {
        return bsi_fail(
            client, bsi_error(BS_TOO_LARGE, NULL, "the file has more than %d parts", (int)BS_MEDIA_PARTS_MAX));
    }
    bs_code code = window->count == PARTS_IN_FLIGHT ? settle_oldest(upload) : BS_OK;
    if (code != BS_OK) return code;
    crypto_hash_sha256_update(&upload->digest, upload->buffer, size);
    size_t place = next_place(window);
    window->waiting[place] = (struct waiting){0};
    bs_put_media_part_payload part = {.data = {upload->buffer, size}};
    window->tickets[place] = bs_put_media_part_send(client, &part, NULL, bsi_arrived, &window->waiting[place]);
    if (window->tickets[place] == 0) return client->error->code;
    window->count++;
    upload->sent++;
    return BS_OK;
}

/** Put all parts, at least one: an empty file has one empty part. */
static bs_code put_parts(struct upload *upload, bs_read read, void *context) {
    size_t size;
    do {
        bs_code code = read_part(upload->window.client, upload->buffer, read, context, &size);
        if (code == BS_OK && (size > 0 || upload->sent == 0)) code = put_part(upload, size);
        if (code != BS_OK) return code;
    } while (size == BS_MEDIA_PART_BYTES_MAX);
    while (upload->window.count > 0) {
        bs_code code = settle_oldest(upload);
        if (code != BS_OK) return code;
    }
    return BS_OK;
}

static bs_code put_whole(struct upload *upload, const char *mime, const char *uploader_id, bs_media **media) {
    bs_client *client = upload->window.client;
    bs_put_media_payload whole = {
        .parts = {upload->parts, upload->count},
        .mime = bs_text_of(mime),
        .uploader_id = bs_text_of(uploader_id),
    };
    bs_request request = {.timeout_ms = TIMEOUT_MS + READ_MS_PER_PART * (int)upload->count};
    bs_media *made;
    bs_code code = bs_put_media(client, &whole, &request, &made);
    if (code == BS_OK) code = compare(client, &upload->digest, made);
    if (code == BS_OK && media != NULL)
        *media = made;
    else
        bs_free(made);
    return code;
}

bs_code
bs_upload(bs_client *client, bs_read read, void *context, const char *mime, const char *uploader_id, bs_media **media) {
    if (media != NULL) *media = NULL;
    struct upload *upload = calloc(1, sizeof *upload);
    uint8_t *buffer = malloc(BS_MEDIA_PART_BYTES_MAX);
    bs_code code = BS_OK;
    if (upload == NULL || buffer == NULL) {
        code = bsi_fail(client, bsi_no_memory);
    } else {
        upload->window.client = client;
        upload->buffer = buffer;
        crypto_hash_sha256_init(&upload->digest);
        code = put_parts(upload, read, context);
        abandon(&upload->window);
        if (code == BS_OK) code = put_whole(upload, mime, uploader_id, media);
    }
    free(buffer);
    free(upload);
    return code;
}

/** Ask for parts as long as there is room. */
static bs_code ask_for_parts(struct window *window, const bs_media *media, int64_t *asked) {
    for (; *asked < media->parts && window->count < PARTS_IN_FLIGHT; (*asked)++, window->count++) {
        size_t place = next_place(window);
        window->waiting[place] = (struct waiting){0};
        bs_get_media_part_payload part = {.media_id = media->id, .has_part = true, .part = *asked};
        window->tickets[place] =
            bs_get_media_part_send(window->client, &part, NULL, bsi_arrived, &window->waiting[place]);
        if (window->tickets[place] == 0) return window->client->error->code;
    }
    return BS_OK;
}

static bs_code write_parts(
    struct window *window, const bs_media *media, crypto_hash_sha256_state *digest, bs_write write, void *context) {
    int64_t asked = 0;
    for (int64_t part = 0; part < media->parts; part++) {
        void *result = NULL;
        bs_code code = ask_for_parts(window, media, &asked);
        if (code == BS_OK) code = take_oldest(window, &result);
        const bs_bytes *bytes = result;
        if (code == BS_OK) {
            crypto_hash_sha256_update(digest, bytes->data, bytes->size);
            if (!write(context, bytes->data, bytes->size)) {
                code = bsi_fail(window->client, bsi_error(BS_ABORTED, NULL, "the file cannot be written"));
            }
        }
        bs_free(result);
        if (code != BS_OK) return code;
    }
    return BS_OK;
}

bs_code bs_download(bs_client *client, const char *media_id, bs_write write, void *context) {
    struct window window = {.client = client};
    crypto_hash_sha256_state digest;
    bs_get_media_payload payload = {.media_id = bs_text_of(media_id)};
    bs_media *media;
    bs_code code = bs_get_media(client, &payload, NULL, &media);
    if (code != BS_OK) return code;
    if (media == NULL) return bsi_fail(client, bsi_error(BS_NOT_FOUND, NULL, "there is no media \"%s\"", media_id));
    crypto_hash_sha256_init(&digest);
    code = write_parts(&window, media, &digest, write, context);
    abandon(&window);
    if (code == BS_OK) code = compare(client, &digest, media);
    bs_free(media);
    return code;
}

static ptrdiff_t read_stream(void *context, void *buffer, size_t size) {
    size_t got = fread(buffer, 1, size, context);
    return got == 0 && ferror((FILE *)context) ? -1 : (ptrdiff_t)got;
}

static bool write_stream(void *context, const void *data, size_t size) {
    return fwrite(data, 1, size, context) == size;
}

bs_code bs_upload_file(bs_client *client, FILE *file, const char *mime, const char *uploader_id, bs_media **media) {
    return bs_upload(client, read_stream, file, mime, uploader_id, media);
}

bs_code bs_download_file(bs_client *client, const char *media_id, FILE *file) {
    return bs_download(client, media_id, write_stream, file);
}
