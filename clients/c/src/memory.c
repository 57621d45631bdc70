#include "memory.h"

#include <stdlib.h>
#include <string.h>

static const size_t BUFFER_BYTES_MIN = 256;
static const size_t BLOCK_BYTES_MIN = 1024;

uint8_t *bsi_buffer_extend(struct buffer *buffer, size_t size) {
    if (buffer->failed) return NULL;
    if (size > buffer->capacity - buffer->size) {
        size_t wanted = buffer->size + size;
        size_t capacity = 2 * buffer->capacity > BUFFER_BYTES_MIN ? 2 * buffer->capacity : BUFFER_BYTES_MIN;
        if (capacity < wanted) capacity = wanted;
        uint8_t *data = wanted < size ? NULL : realloc(buffer->data, capacity);
        if (data == NULL) {
            buffer->failed = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    uint8_t *end = buffer->data + buffer->size;
    buffer->size += size;
    return end;
}

void bsi_buffer_append(struct buffer *buffer, const void *data, size_t size) {
    uint8_t *end = bsi_buffer_extend(buffer, size);
    if (end != NULL && size > 0) memcpy(end, data, size);
}

void bsi_buffer_text(struct buffer *buffer, const char *text) {
    bsi_buffer_append(buffer, text, strlen(text));
}

void bsi_buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/** A piece of memory from which smaller ones are taken. */
struct block {
    struct block *next;
    size_t used;
    size_t size;
    max_align_t data[];
};

/** It lies in its first block, right before the root. */
struct arena {
    struct block *blocks;
};

static size_t aligned(size_t size) {
    size_t unit = sizeof(max_align_t);
    return (size + unit - 1) / unit * unit;
}

static struct block *block_new(size_t size) {
    struct block *block = calloc(1, sizeof(struct block) + size);
    if (block != NULL) block->size = size;
    return block;
}

void *bsi_arena_new(size_t root_size, struct arena **arena) {
    size_t header = aligned(sizeof(struct arena)), root = aligned(root_size);
    size_t size = header + root > BLOCK_BYTES_MIN ? header + root : BLOCK_BYTES_MIN;
    struct block *block = block_new(size);
    if (block == NULL) return NULL;
    *arena = (struct arena *)block->data;
    (*arena)->blocks = block;
    block->used = header + root;
    return (char *)block->data + header;
}

void *bsi_arena_take(struct arena *arena, size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size_t wanted = aligned(size > 0 ? size : 1);
    struct block *block = arena->blocks;
    if (wanted > block->size - block->used) {
        // Each block is as large as all before it, so that there are few.
        size_t usual = 2 * block->size;
        block = block_new(wanted > usual ? wanted : usual);
        if (block == NULL) return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *taken = (char *)block->data + block->used;
    block->used += wanted;
    return taken;
}

char *bsi_arena_copy(struct arena *arena, const void *data, size_t size) {
    char *copy = bsi_arena_take(arena, size + 1);
    if (copy != NULL && size > 0) memcpy(copy, data, size);
    return copy;
}

void bsi_arena_free(const void *root) {
    if (root == NULL) return;
    const struct arena *arena = (const struct arena *)((const char *)root - aligned(sizeof(struct arena)));
    for (struct block *block = arena->blocks, *next; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
}
