/** Memory: buffers that grow, and arenas that are freed as a whole. */

#ifndef BSI_MEMORY_H
#define BSI_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Bytes to which others are appended. When there is no memory it fails and stays so: check `failed` at the end. */
struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
};

/** Room for so many bytes more at the end, which count as appended; NULL if there is no memory. */
uint8_t *bsi_buffer_extend(struct buffer *buffer, size_t size);
void bsi_buffer_append(struct buffer *buffer, const void *data, size_t size);
void bsi_buffer_text(struct buffer *buffer, const char *text);
void bsi_buffer_free(struct buffer *buffer);

struct arena;

/** A new arena with one zeroed piece of memory, its root; NULL if there is no memory. */
void *bsi_arena_new(size_t root_size, struct arena **arena);

/** A zeroed piece of memory that lives as long as the root; NULL if there is no memory. */
void *bsi_arena_take(struct arena *arena, size_t size);

/** A copy of bytes, with a NUL after them; NULL if there is no memory. */
char *bsi_arena_copy(struct arena *arena, const void *data, size_t size);

/** Free the arena of a root, also of NULL. */
void bsi_arena_free(const void *root);

#endif
