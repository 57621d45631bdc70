#include "msgpack.h"

#include <string.h>

/** The first bytes of what is longer than the smallest forms. */
enum {
    NIL = 0xc0,
    FALSE_ = 0xc2,
    TRUE_ = 0xc3,
    BIN8 = 0xc4,
    FLOAT32 = 0xca,
    FLOAT64 = 0xcb,
    UINT8 = 0xcc,
    INT8 = 0xd0,
    STR8 = 0xd9,
    ARRAY16 = 0xdc,
    ARRAY32 = 0xdd,
    MAP16 = 0xde,
    MAP32 = 0xdf,
    FIX_MAP = 0x80,
    FIX_ARRAY = 0x90,
    FIX_STR = 0xa0,
    NEGATIVE_FIX_INT = 0xe0,
};

/** A head of five bytes, which is long enough for every count. */
static const size_t HEAD_BYTES = 5;

/** Append a first byte and a number in so many bytes, the most significant first. */
static void pack(struct buffer *buffer, int first, uint64_t number, size_t bytes) {
    uint8_t *end = bsi_buffer_extend(buffer, 1 + bytes);
    if (end == NULL) return;
    *end = (uint8_t)first;
    for (size_t at = bytes; at > 0; at--, number >>= 8) end[at] = (uint8_t)number;
}

/** How many bytes a number needs, as a power of two: 0 for one, 3 for eight. */
static int width_of(uint64_t number) {
    if (number <= UINT8_MAX) return 0;
    if (number <= UINT16_MAX) return 1;
    return number <= UINT32_MAX ? 2 : 3;
}

void bsi_pack_nil(struct buffer *buffer) {
    pack(buffer, NIL, 0, 0);
}

void bsi_pack_boolean(struct buffer *buffer, bool value) {
    pack(buffer, value ? TRUE_ : FALSE_, 0, 0);
}

void bsi_pack_unsigned(struct buffer *buffer, uint64_t value) {
    int width = width_of(value);
    if (value < 0x80)
        pack(buffer, (int)value, 0, 0);
    else
        pack(buffer, UINT8 + width, value, (size_t)1 << width);
}

void bsi_pack_integer(struct buffer *buffer, int64_t value) {
    if (value >= 0) {
        bsi_pack_unsigned(buffer, (uint64_t)value);
    } else if (value >= -32) {
        pack(buffer, (uint8_t)value, 0, 0);
    } else {
        int width = value >= INT8_MIN ? 0 : value >= INT16_MIN ? 1 : value >= INT32_MIN ? 2 : 3;
        pack(buffer, INT8 + width, (uint64_t)value, (size_t)1 << width);
    }
}

void bsi_pack_float(struct buffer *buffer, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    pack(buffer, FLOAT64, bits, sizeof bits);
}

void bsi_pack_text(struct buffer *buffer, const char *text, size_t size) {
    int width = width_of(size);
    if (size < 32)
        pack(buffer, FIX_STR | (int)size, 0, 0);
    else
        pack(buffer, STR8 + width, size, (size_t)1 << width);
    bsi_buffer_append(buffer, text, size);
}

void bsi_pack_string(struct buffer *buffer, const char *string) {
    bsi_pack_text(buffer, string, strlen(string));
}

void bsi_pack_bytes(struct buffer *buffer, const void *data, size_t size) {
    int width = width_of(size);
    pack(buffer, BIN8 + width, size, (size_t)1 << width);
    bsi_buffer_append(buffer, data, size);
}

/** Append the head of an array or a map. */
static void pack_head(struct buffer *buffer, int fix, int first16, size_t count) {
    if (count < 16)
        pack(buffer, fix | (int)count, 0, 0);
    else if (count <= UINT16_MAX)
        pack(buffer, first16, count, 2);
    else
        pack(buffer, first16 + 1, count, 4);
}

void bsi_pack_array(struct buffer *buffer, size_t count) {
    pack_head(buffer, FIX_ARRAY, ARRAY16, count);
}

void bsi_pack_map(struct buffer *buffer, size_t count) {
    pack_head(buffer, FIX_MAP, MAP16, count);
}

size_t bsi_pack_begin(struct buffer *buffer) {
    size_t head = buffer->size;
    (void)bsi_buffer_extend(buffer, HEAD_BYTES);
    return head;
}

static void end_with(struct buffer *buffer, size_t head, int first, size_t count) {
    if (buffer->failed) return;
    struct buffer written = {.data = buffer->data + head, .capacity = HEAD_BYTES};
    pack(&written, first, count, HEAD_BYTES - 1);
}

void bsi_pack_end_array(struct buffer *buffer, size_t head, size_t count) {
    end_with(buffer, head, ARRAY32, count);
}

void bsi_pack_end_map(struct buffer *buffer, size_t head, size_t count) {
    end_with(buffer, head, MAP32, count);
}

/** Read a number in so many bytes. */
static bool read_number(struct reader *reader, size_t bytes, uint64_t *number) {
    if ((size_t)(reader->end - reader->at) < bytes) return false;
    *number = 0;
    while (bytes-- > 0) *number = *number << 8 | *reader->at++;
    return true;
}

/** Read a number and take it for a size; of what has contents, as many bytes must follow at least. */
static bool read_size(struct reader *reader, size_t bytes, size_t *size) {
    uint64_t number;
    if (!read_number(reader, bytes, &number) || number > (uint64_t)(reader->end - reader->at)) return false;
    *size = (size_t)number;
    return true;
}

static bool read_data(struct reader *reader, struct token *token, enum token_type type, size_t size) {
    if ((size_t)(reader->end - reader->at) < size) return false;
    token->type = type;
    token->data = reader->at;
    token->size = size;
    reader->at += size;
    return true;
}

static bool read_integer(struct reader *reader, struct token *token, int first) {
    bool is_signed = first >= INT8;
    size_t bytes = (size_t)1 << (first - (is_signed ? INT8 : UINT8));
    uint64_t number;
    if (!read_number(reader, bytes, &number)) return false;
    token->type = TOKEN_INTEGER;
    if (is_signed) {
        int unused = 64 - 8 * (int)bytes;
        token->integer = (int64_t)(number << unused) >> unused;
    } else if (number <= INT64_MAX) {
        token->integer = (int64_t)number;
    } else {
        token->type = TOKEN_UNSIGNED;
        token->natural = number;
    }
    return true;
}

static bool read_float(struct reader *reader, struct token *token, int first) {
    uint64_t number;
    if (!read_number(reader, first == FLOAT32 ? 4 : 8, &number)) return false;
    token->type = TOKEN_FLOAT;
    if (first == FLOAT32) {
        uint32_t bits = (uint32_t)number;
        float value;
        memcpy(&value, &bits, sizeof value);
        token->number = (double)value;
    } else {
        memcpy(&token->number, &number, sizeof number);
    }
    return true;
}

bool bsi_read(struct reader *reader, struct token *token) {
    if (reader->at == reader->end) return false;
    int first = *reader->at++;
    *token = (struct token){.type = TOKEN_INTEGER, .integer = first};
    if (first < FIX_MAP) return true;
    if (first >= NEGATIVE_FIX_INT) {
        token->integer = first - 256;
        return true;
    }
    if (first >= FIX_STR && first < NIL) return read_data(reader, token, TOKEN_TEXT, (size_t)(first & 31));
    if (first < FIX_STR) {
        token->type = first < FIX_ARRAY ? TOKEN_MAP : TOKEN_ARRAY;
        token->size = (size_t)(first & 15);
        return token->size <= (size_t)(reader->end - reader->at);
    }
    size_t size;
    switch (first) {
    case NIL:
        token->type = TOKEN_NIL;
        return true;
    case FALSE_:
    case TRUE_:
        token->type = TOKEN_BOOLEAN;
        token->boolean = first == TRUE_;
        return true;
    case BIN8:
    case BIN8 + 1:
    case BIN8 + 2:
        return read_size(reader, (size_t)1 << (first - BIN8), &size) && read_data(reader, token, TOKEN_BYTES, size);
    case STR8:
    case STR8 + 1:
    case STR8 + 2:
        return read_size(reader, (size_t)1 << (first - STR8), &size) && read_data(reader, token, TOKEN_TEXT, size);
    case FLOAT32:
    case FLOAT64:
        return read_float(reader, token, first);
    case ARRAY16:
    case ARRAY32:
        token->type = TOKEN_ARRAY;
        return read_size(reader, first == ARRAY16 ? 2 : 4, &token->size);
    case MAP16:
    case MAP32:
        token->type = TOKEN_MAP;
        return read_size(reader, first == MAP16 ? 2 : 4, &token->size);
    default:
        return first >= UINT8 && first < INT8 + 4 && read_integer(reader, token, first);
    }
}

bool bsi_skip(struct reader *reader) {
    struct token token;
    // Each value takes at least a byte, and no count is greater than the bytes that are left.
    for (uint64_t left = 1; left > 0; left--) {
        if (!bsi_read(reader, &token)) return false;
        if (token.type == TOKEN_ARRAY) left += token.size;
        if (token.type == TOKEN_MAP) left += 2 * (uint64_t)token.size;
    }
    return true;
}

bool bsi_token_is(const struct token *token, const char *text) {
    return token->type == TOKEN_TEXT && token->size == strlen(text) && memcmp(token->data, text, token->size) == 0;
}

bool bsi_find(struct reader map, const char *name, struct reader *value) {
    struct token head, key;
    bool is_found = false;
    if (!bsi_read(&map, &head) || head.type != TOKEN_MAP) return false;
    for (size_t left = head.size; left > 0; left--) {
        if (!bsi_read(&map, &key)) return false;
        if (key.type == TOKEN_ARRAY || key.type == TOKEN_MAP) return false;
        struct reader begun = map;
        if (!bsi_skip(&map)) return false;
        if (bsi_token_is(&key, name)) {
            *value = (struct reader){begun.at, map.at};
            is_found = true; // of a name that comes twice the last value counts
        }
    }
    return is_found;
}
