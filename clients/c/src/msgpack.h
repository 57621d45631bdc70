/**
 * MessagePack, as much of it as the protocol has. The library msgpack-c reads at most 32 levels, of which free JSON may
 * need all, inside of a page in a reply.
 */

#ifndef BSI_MSGPACK_H
#define BSI_MSGPACK_H

#include "memory.h"

void bsi_pack_nil(struct buffer *buffer);
void bsi_pack_boolean(struct buffer *buffer, bool value);
void bsi_pack_integer(struct buffer *buffer, int64_t value);
void bsi_pack_unsigned(struct buffer *buffer, uint64_t value);
void bsi_pack_float(struct buffer *buffer, double value);
void bsi_pack_text(struct buffer *buffer, const char *text, size_t size);
/** Append the text of a string. */
void bsi_pack_string(struct buffer *buffer, const char *string);
void bsi_pack_bytes(struct buffer *buffer, const void *data, size_t size);
void bsi_pack_array(struct buffer *buffer, size_t count);
void bsi_pack_map(struct buffer *buffer, size_t count);

/** Begin an array or a map whose count is not known yet; returns where its head is, for `bsi_pack_end`. */
size_t bsi_pack_begin(struct buffer *buffer);
/** Write the head of an array that has ended. */
void bsi_pack_end_array(struct buffer *buffer, size_t head, size_t count);
/** Write the head of a map that has ended. */
void bsi_pack_end_map(struct buffer *buffer, size_t head, size_t count);

/** Bytes that are read from their beginning. */
struct reader {
    const uint8_t *at;
    const uint8_t *end;
};

enum token_type {
    TOKEN_NIL,
    TOKEN_BOOLEAN,
    TOKEN_INTEGER,  /**< that fits into `int64_t` */
    TOKEN_UNSIGNED, /**< that does not */
    TOKEN_FLOAT,
    TOKEN_TEXT,
    TOKEN_BYTES,
    TOKEN_ARRAY,
    TOKEN_MAP,
};

/** A value, or the head of an array or a map. */
struct token {
    enum token_type type;
    bool boolean;
    int64_t integer;
    uint64_t natural;
    double number;
    const uint8_t *data; /**< Of a text or bytes. */
    size_t size;         /**< Of a text or bytes, the count of an array or a map. */
};

/** Read the next token; false if there is none, or one that the protocol does not have. */
bool bsi_read(struct reader *reader, struct token *token);

/** Read over the next value, with all that is in it; false if it is not whole. */
bool bsi_skip(struct reader *reader);

/** Whether a token is this text. */
bool bsi_token_is(const struct token *token, const char *text);

/** Go to the value under a name in the map that comes next; false if it is no map or does not have it. */
bool bsi_find(struct reader map, const char *name, struct reader *value);

#endif
