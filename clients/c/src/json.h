/** JSON text and MessagePack, each as the other. Integers have 64 bits, and 1.0 is not 1. */

#ifndef BSI_JSON_H
#define BSI_JSON_H

#include "errors.h"
#include "msgpack.h"
#include "path.h"

/** Append the MessagePack of one value of JSON; the error names the path of what is none. */
bs_error *bsi_json_read(const char *text, size_t size, struct buffer *msgpack, const struct path *path);

/** Append the JSON of the next value; false if it has none, is not whole, is too deep, or has text that is not UTF-8. */
bool bsi_json_write(struct reader *reader, struct buffer *json);

/** Append a text in JSON, with its quotes; false if it is not UTF-8. */
bool bsi_json_write_text(struct buffer *json, const char *text, size_t size);

/** Whether bytes are UTF-8. */
bool bsi_is_utf8(const char *text, size_t size);

#endif
