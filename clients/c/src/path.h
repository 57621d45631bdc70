/** Where in a request a value is, as a chain on the stack that costs nothing until an error names it. */

#ifndef BSI_PATH_H
#define BSI_PATH_H

#include "memory.h"

/** A step of a path: a name, or if that is NULL an index. */
struct path {
    const struct path *before;
    const char *name;
    size_t name_size;
    size_t index;
};

/** The path of a named value in another one. */
struct path bsi_path_name(const struct path *before, const char *name, size_t size);

/** The path of an item of a list. */
struct path bsi_path_index(const struct path *before, size_t index);

/** Append it as text, such as `$.payload.message.metadata.a[0]`. */
void bsi_path_write(const struct path *path, struct buffer *buffer);

/** `$.payload` */
extern const struct path bsi_payload_path;

#endif
