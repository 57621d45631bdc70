/** Records and payloads as MessagePack, by tables that say what each struct has. */

#ifndef BSI_CODEC_H
#define BSI_CODEC_H

#include "errors.h"
#include "memory.h"
#include "msgpack.h"
#include "path.h"

/** How many items an array has. */
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/** How a value is held in a struct. */
enum kind {
    KIND_NULL,
    KIND_TEXT,             /**< `bs_text` */
    KIND_INTEGER,          /**< `int64_t` */
    KIND_BOOLEAN,          /**< `bool` */
    KIND_BYTES,            /**< `bs_bytes` */
    KIND_JSON,             /**< `bs_json`, any value */
    KIND_OBJECT,           /**< `bs_json`, an object */
    KIND_RECORD,           /**< a struct */
    KIND_POINTER,          /**< a pointer to a struct */
    KIND_TEXTS,            /**< `bs_text_array` */
    KIND_JSONS,            /**< `bs_json_array` */
    KIND_RECORDS,          /**< an array of structs and its count */
    KIND_NAMED_INTEGERS,   /**< `bs_named_integer_array` */
    KIND_BATCHED_COMMANDS, /**< an array of `bs_batched_command` and its count */
};

/** How a struct says whether a field is set. */
enum presence {
    ALWAYS,     /**< It is. */
    BY_POINTER, /**< By a pointer in it that is not NULL. */
    BY_FLAG,    /**< By a boolean beside it. */
    BY_STATE,   /**< By a `bs_update` beside it. */
};

struct record;

/** A field of a struct. */
struct field {
    const char *name; /**< On the wire. */
    enum kind kind;
    enum presence presence;
    bool required;
    bool nullable;
    size_t offset;               /**< Of the value. */
    size_t flag_offset;          /**< Of the boolean or `bs_update` beside it. */
    const struct record *record; /**< Of a struct, a pointer to one, or an array of such. */
    const char *variant;         /**< If set, the field has this type only where the record's tag has this value. */
};

/** A struct. */
struct record {
    const char *name;
    size_t size;
    const struct field *fields;
    size_t count;
    bool keeps_others;    /**< Whether it has a place for fields of a later level … */
    size_t others_offset; /**< … and where. */
    const char *tag;      /**< The field whose value tells the type of another one, if there is such. */
    size_t tag_offset;
};

/** What a result is. */
struct result_type {
    enum kind kind;
    bool nullable;
    const struct record *record;
};

/** What the client has to know about an operation. */
struct operation {
    const char *name;
    const char *kind;
    const struct record *payload; /**< NULL if it has no fields at this level. */
    struct result_type result;
    const char *const *reads; /**< The kinds of items that a query reads, ended by NULL; or NULL. */
};

/** All operations, ended by NULL. */
extern const struct operation *const bsi_operations[];

/** The operation of a name; NULL if this level has none. */
const struct operation *bsi_operation_of(const char *name);

/** Append a struct; the error names the path of what cannot be sent. `value` may be NULL where nothing is required. */
bs_error *
bsi_encode_record(struct buffer *buffer, const struct record *record, const void *value, const struct path *path);

/** Append a result, or any value that is held like one. */
bs_error *
bsi_encode_value(struct buffer *buffer, const struct result_type *type, const void *value, const struct path *path);

/** Read a struct into `value`, which is zero, and what it points to into the arena. */
bs_error *bsi_decode_record(
    struct reader *reader, const struct record *record, void *value, struct arena *arena, const struct path *path);

/** Read a result as the root of a new arena; NULL for null. An error if it is of another type. */
bs_error *bsi_decode_result(struct reader *reader, const struct result_type *type, void **result);

/** The size of a value of a kind. */
size_t bsi_size_of(enum kind kind, const struct record *record);

#endif
