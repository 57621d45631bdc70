#include "path.h"

#include <stdio.h>

static const struct path ROOT = {NULL, "$", 1, 0};
const struct path bsi_payload_path = {&ROOT, "payload", 7, 0};

struct path bsi_path_name(const struct path *before, const char *name, size_t size) {
    return (struct path){before, name, size, 0};
}

struct path bsi_path_index(const struct path *before, size_t index) {
    return (struct path){before, NULL, 0, index};
}

void bsi_path_write(const struct path *path, struct buffer *buffer) {
    if (path->before != NULL) bsi_path_write(path->before, buffer);
    if (path->name != NULL) {
        if (path->before != NULL) bsi_buffer_text(buffer, ".");
        bsi_buffer_append(buffer, path->name, path->name_size);
    } else {
        char index[32];
        snprintf(index, sizeof index, "[%zu]", path->index);
        bsi_buffer_text(buffer, index);
    }
}
