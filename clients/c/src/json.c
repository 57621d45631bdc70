#include "json.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** A little more than the deepest payload or reply: free JSON in a message in a page, or in a batch. */
enum { DEPTH_MAX = BS_FREE_JSON_DEPTH_MAX + 16 };
/** A number has fewer characters, or it is none that anybody means. */
enum { NUMBER_CHARS_MAX = 400 };
enum { FLOAT_DIGITS_MIN = 15, FLOAT_DIGITS_MAX = 17 };

struct parser {
    const char *at;
    const char *end;
    struct buffer *msgpack;
    int depth;
};

static bs_error *read_value(struct parser *parser, const struct path *path);

static void skip_space(struct parser *parser) {
    while (parser->at < parser->end && strchr(" \t\n\r", *parser->at) != NULL && *parser->at != '\0') parser->at++;
}

static bool next_is(const struct parser *parser, char sign) {
    return parser->at < parser->end && *parser->at == sign;
}

static bool take(struct parser *parser, char sign) {
    skip_space(parser);
    if (!next_is(parser, sign)) return false;
    parser->at++;
    return true;
}

static bs_error *not_json(const struct path *path) {
    return bsi_error(BS_INVALID, path, "it is not valid JSON");
}

/** The length of the UTF-8 sequence at the beginning of these bytes; 0 if it is none. */
static size_t utf8_length(const uint8_t *bytes, size_t size) {
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = bytes[0] < 0x80       ? 1
                    : bytes[0] >> 5 == 6  ? 2
                    : bytes[0] >> 4 == 14 ? 3
                    : bytes[0] >> 3 == 30 ? 4
                                          : 0;
    if (length <= 1) return length;
    if (length > size) return 0;
    uint32_t point = bytes[0] & (0x7fU >> length);
    for (size_t at = 1; at < length; at++) {
        if (bytes[at] >> 6 != 2) return 0;
        point = point << 6 | (bytes[at] & 0x3fU);
    }
    bool is_surrogate = point >= 0xd800 && point < 0xe000;
    return point < LEAST[length] || point > 0x10ffff || is_surrogate ? 0 : length;
}

bool bsi_is_utf8(const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        size_t length = utf8_length((const uint8_t *)text + at, size - at);
        if (length == 0) return false;
        at += length;
    }
    return true;
}

/** Append a code point as UTF-8. */
static void append_point(struct buffer *buffer, uint32_t point) {
    uint8_t bytes[4];
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t at = length; at-- > 1; point >>= 6) bytes[at] = (uint8_t)(0x80 | (point & 0x3f));
    static const uint8_t FIRST[] = {0, 0, 0xc0, 0xe0, 0xf0};
    bytes[0] = (uint8_t)(FIRST[length] | point);
    bsi_buffer_append(buffer, bytes, length);
}

/** Read four hexadecimal digits. */
static bool read_hex(struct parser *parser, uint32_t *unit) {
    if (parser->end - parser->at < 4) return false;
    *unit = 0;
    for (const char *last = parser->at + 4; parser->at < last; parser->at++) {
        static const char DIGITS[] = "0123456789abcdef";
        char sign = *parser->at >= 'A' && *parser->at <= 'F' ? (char)(*parser->at + 'a' - 'A') : *parser->at;
        const char *digit = sign == '\0' ? NULL : strchr(DIGITS, sign);
        if (digit == NULL) return false;
        *unit = *unit << 4 | (uint32_t)(digit - DIGITS);
    }
    return true;
}

/** Read what follows `\u`. */
static bs_error *read_escaped_point(struct parser *parser, struct buffer *text, const struct path *path) {
    uint32_t point, low;
    if (!read_hex(parser, &point)) return not_json(path);
    if (point >= 0xd800 && point < 0xe000) {
        bool is_pair = point < 0xdc00 && parser->end - parser->at >= 2 && memcmp(parser->at, "\\u", 2) == 0;
        if (is_pair) parser->at += 2;
        if (!is_pair || !read_hex(parser, &low) || low < 0xdc00 || low >= 0xe000) {
            return bsi_error(BS_INVALID, path, "a surrogate without its pair is no text");
        }
        point = 0x10000 + ((point - 0xd800) << 10 | (low - 0xdc00));
    }
    append_point(text, point);
    return NULL;
}

/** Read a string, whose quote was taken, without its escapes. */
static bs_error *read_string(struct parser *parser, struct buffer *text, const struct path *path) {
    static const char ESCAPES[] = "\"\\/bfnrt", ESCAPED[] = "\"\\/\b\f\n\r\t";
    while (parser->at < parser->end && *parser->at != '"') {
        const char *begun = parser->at;
        while (parser->at < parser->end && *parser->at != '"' && *parser->at != '\\') {
            if ((uint8_t)*parser->at++ < 0x20) return not_json(path);
        }
        size_t size = (size_t)(parser->at - begun);
        if (!bsi_is_utf8(begun, size)) return bsi_error(BS_INVALID, path, "the text is not UTF-8");
        bsi_buffer_append(text, begun, size);
        if (!next_is(parser, '\\')) continue;
        if (++parser->at == parser->end) return not_json(path);
        char sign = *parser->at++;
        const char *escape = sign == '\0' ? NULL : strchr(ESCAPES, sign);
        if (escape != NULL) {
            bsi_buffer_append(text, &ESCAPED[escape - ESCAPES], 1);
        } else {
            bs_error *error = sign == 'u' ? read_escaped_point(parser, text, path) : not_json(path);
            if (error != NULL) return error;
        }
    }
    if (parser->at == parser->end) return not_json(path);
    parser->at++;
    return text->failed ? bsi_no_memory : NULL;
}

static bool take_digits(struct parser *parser) {
    const char *begun = parser->at;
    while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9') parser->at++;
    return parser->at > begun;
}

/** `strtod` and `snprintf` have the decimal point of the locale, which may have several bytes: this thread's is "C" now. */
static locale_t enter_c_locale(locale_t *before) {
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    *before = uselocale(c_locale);
    return c_locale;
}

static void leave_c_locale(locale_t c_locale, locale_t before) {
    uselocale(before);
    if (c_locale != (locale_t)0) freelocale(c_locale);
}

static bs_error *pack_float(struct parser *parser, const char *number, const struct path *path) {
    locale_t before, c_locale = enter_c_locale(&before);
    double value = strtod(number, NULL);
    leave_c_locale(c_locale, before);
    if (!isfinite(value)) return bsi_error(BS_INVALID, path, "the number is too large");
    bsi_pack_float(parser->msgpack, value);
    return NULL;
}

static bs_error *read_number(struct parser *parser, const struct path *path) {
    const char *begun = parser->at;
    if (next_is(parser, '-')) parser->at++;
    const char *digits = parser->at;
    if (!take_digits(parser) || (*digits == '0' && parser->at - digits > 1)) return not_json(path);
    bool is_float = false;
    if (next_is(parser, '.')) {
        is_float = true;
        parser->at++;
        if (!take_digits(parser)) return not_json(path);
    }
    if (next_is(parser, 'e') || next_is(parser, 'E')) {
        is_float = true;
        parser->at++;
        if (next_is(parser, '+') || next_is(parser, '-')) parser->at++;
        if (!take_digits(parser)) return not_json(path);
    }
    char number[NUMBER_CHARS_MAX + 1] = {0};
    size_t size = (size_t)(parser->at - begun);
    if (size > NUMBER_CHARS_MAX) return bsi_error(BS_INVALID, path, "the number has too many digits");
    memcpy(number, begun, size);
    if (is_float) return pack_float(parser, number, path);
    bool is_negative = *number == '-';
    errno = 0;
    long long negative = is_negative ? strtoll(number, NULL, 10) : 0;
    unsigned long long natural = is_negative ? 0 : strtoull(number, NULL, 10);
    if (errno != 0) return bsi_error(BS_INVALID, path, "the integer has more than 64 bits; write it as text");
    if (is_negative)
        bsi_pack_integer(parser->msgpack, negative);
    else
        bsi_pack_unsigned(parser->msgpack, natural);
    return NULL;
}

static bs_error *read_array(struct parser *parser, const struct path *path) {
    size_t head = bsi_pack_begin(parser->msgpack), count = 0;
    if (!take(parser, ']')) {
        do {
            struct path inner = bsi_path_index(path, count++);
            bs_error *error = read_value(parser, &inner);
            if (error != NULL) return error;
        } while (take(parser, ','));
        if (!take(parser, ']')) return not_json(path);
    }
    bsi_pack_end_array(parser->msgpack, head, count);
    return NULL;
}

static bs_error *read_member(struct parser *parser, const struct path *path) {
    struct buffer name = {0};
    bs_error *error = take(parser, '"') ? read_string(parser, &name, path) : not_json(path);
    if (error == NULL && !take(parser, ':')) error = not_json(path);
    if (error == NULL) {
        bsi_pack_text(parser->msgpack, (const char *)name.data, name.size);
        struct path inner = bsi_path_name(path, name.size > 0 ? (const char *)name.data : "", name.size);
        error = read_value(parser, &inner);
    }
    bsi_buffer_free(&name);
    return error;
}

static bs_error *read_object(struct parser *parser, const struct path *path) {
    size_t head = bsi_pack_begin(parser->msgpack), count = 0;
    if (!take(parser, '}')) {
        do {
            bs_error *error = read_member(parser, path);
            if (error != NULL) return error;
            count++;
        } while (take(parser, ','));
        if (!take(parser, '}')) return not_json(path);
    }
    bsi_pack_end_map(parser->msgpack, head, count);
    return NULL;
}

static bs_error *read_text(struct parser *parser, const struct path *path) {
    struct buffer text = {0};
    bs_error *error = read_string(parser, &text, path);
    if (error == NULL) bsi_pack_text(parser->msgpack, (const char *)text.data, text.size);
    bsi_buffer_free(&text);
    return error;
}

/** Take a word such as `true`. */
static bool take_word(struct parser *parser, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(parser->end - parser->at) < size || memcmp(parser->at, word, size) != 0) return false;
    parser->at += size;
    return true;
}

static bs_error *read_word(struct parser *parser, const struct path *path) {
    if (take_word(parser, "null"))
        bsi_pack_nil(parser->msgpack);
    else if (take_word(parser, "true"))
        bsi_pack_boolean(parser->msgpack, true);
    else if (take_word(parser, "false"))
        bsi_pack_boolean(parser->msgpack, false);
    else
        return not_json(path);
    return NULL;
}

static bs_error *read_value(struct parser *parser, const struct path *path) {
    if (parser->depth == DEPTH_MAX) return bsi_error(BS_INVALID, path, "more than %d levels", (int)DEPTH_MAX);
    skip_space(parser);
    if (parser->at == parser->end) return not_json(path);
    bs_error *error;
    char sign = *parser->at;
    parser->depth++;
    if (sign == '-' || (sign >= '0' && sign <= '9'))
        error = read_number(parser, path);
    else if (take(parser, '{'))
        error = read_object(parser, path);
    else if (take(parser, '['))
        error = read_array(parser, path);
    else if (take(parser, '"'))
        error = read_text(parser, path);
    else
        error = read_word(parser, path);
    parser->depth--;
    return error;
}

bs_error *bsi_json_read(const char *text, size_t size, struct buffer *msgpack, const struct path *path) {
    struct parser parser = {text, text + size, msgpack, 0};
    bs_error *error = read_value(&parser, path);
    if (error != NULL) return error;
    skip_space(&parser);
    if (parser.at < parser.end) return not_json(path);
    return msgpack->failed ? bsi_no_memory : NULL;
}

bool bsi_json_write_text(struct buffer *json, const char *text, size_t size) {
    if (!bsi_is_utf8(text, size)) return false;
    bsi_buffer_text(json, "\"");
    for (size_t at = 0, begun = 0; at <= size; at++) {
        bool is_plain = at < size && (uint8_t)text[at] >= 0x20 && text[at] != '"' && text[at] != '\\';
        if (is_plain) continue;
        bsi_buffer_append(json, text + begun, at - begun);
        begun = at + 1;
        if (at == size) break;
        char escaped[8];
        if (text[at] == '"' || text[at] == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", text[at]);
        else
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(uint8_t)text[at]);
        bsi_buffer_text(json, escaped);
    }
    bsi_buffer_text(json, "\"");
    return true;
}

/** Append a number with as few digits as tell it apart from all others, and so that it is no integer. */
static bool write_float(double value, struct buffer *json) {
    char number[40];
    if (!isfinite(value)) return false;
    locale_t before, c_locale = enter_c_locale(&before);
    for (int digits = FLOAT_DIGITS_MIN; digits <= FLOAT_DIGITS_MAX; digits++) {
        snprintf(number, sizeof number, "%.*g", digits, value);
        if (strtod(number, NULL) >= value && strtod(number, NULL) <= value) break;
    }
    leave_c_locale(c_locale, before);
    bsi_buffer_text(json, number);
    if (strpbrk(number, ".e") == NULL) bsi_buffer_text(json, ".0");
    return true;
}

static bool write_value(struct reader *reader, struct buffer *json, int depth);

static bool write_array(struct reader *reader, struct buffer *json, size_t count, int depth) {
    bsi_buffer_text(json, "[");
    for (size_t at = 0; at < count; at++) {
        if (at > 0) bsi_buffer_text(json, ",");
        if (!write_value(reader, json, depth)) return false;
    }
    bsi_buffer_text(json, "]");
    return true;
}

static bool write_object(struct reader *reader, struct buffer *json, size_t count, int depth) {
    struct token name;
    bsi_buffer_text(json, "{");
    for (size_t at = 0; at < count; at++) {
        if (at > 0) bsi_buffer_text(json, ",");
        if (!bsi_read(reader, &name) || name.type != TOKEN_TEXT) return false;
        if (!bsi_json_write_text(json, (const char *)name.data, name.size)) return false;
        bsi_buffer_text(json, ":");
        if (!write_value(reader, json, depth)) return false;
    }
    bsi_buffer_text(json, "}");
    return true;
}

/** Append bytes as base64. */
static void write_bytes(struct buffer *json, const uint8_t *data, size_t size) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bsi_buffer_text(json, "\"");
    for (size_t at = 0; at < size; at += 3) {
        size_t left = size - at < 3 ? size - at : 3;
        uint32_t bits = (uint32_t)data[at] << 16;
        if (left > 1) bits |= (uint32_t)data[at + 1] << 8;
        if (left > 2) bits |= data[at + 2];
        char digits[] = {
            DIGITS[bits >> 18],
            DIGITS[bits >> 12 & 63],
            left > 1 ? DIGITS[bits >> 6 & 63] : '=',
            left > 2 ? DIGITS[bits & 63] : '=',
        };
        bsi_buffer_append(json, digits, sizeof digits);
    }
    bsi_buffer_text(json, "\"");
}

static bool write_value(struct reader *reader, struct buffer *json, int depth) {
    struct token token;
    char number[32];
    if (depth == DEPTH_MAX || !bsi_read(reader, &token)) return false;
    switch (token.type) {
    case TOKEN_NIL:
        bsi_buffer_text(json, "null");
        return true;
    case TOKEN_BOOLEAN:
        bsi_buffer_text(json, token.boolean ? "true" : "false");
        return true;
    case TOKEN_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)token.integer);
        bsi_buffer_text(json, number);
        return true;
    case TOKEN_UNSIGNED:
        snprintf(number, sizeof number, "%llu", (unsigned long long)token.natural);
        bsi_buffer_text(json, number);
        return true;
    case TOKEN_FLOAT:
        return write_float(token.number, json);
    case TOKEN_TEXT:
        return bsi_json_write_text(json, (const char *)token.data, token.size);
    case TOKEN_BYTES:
        write_bytes(json, token.data, token.size);
        return true;
    case TOKEN_ARRAY:
        return write_array(reader, json, token.size, depth + 1);
    case TOKEN_MAP:
        return write_object(reader, json, token.size, depth + 1);
    }
    return false;
}

bool bsi_json_write(struct reader *reader, struct buffer *json) {
    return write_value(reader, json, 0) && !json->failed;
}
