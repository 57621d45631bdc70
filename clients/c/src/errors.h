/** Errors: made here, or read from a reply. */

#ifndef BSI_ERRORS_H
#define BSI_ERRORS_H

#include "../include/backscroll.h"
#include "msgpack.h"
#include "path.h"

/** What is known about a code. */
struct code_info {
    const char *name;
    bs_fault fault;
};

/** By `bs_code`. */
extern const struct code_info bsi_codes[];

/** There is no memory for another error. It is not to be changed; freeing it does nothing. */
extern bs_error *const bsi_no_memory;

/** An error of this library. Where there is a path, the message begins with it. It may be `bsi_no_memory`. */
__attribute__((format(printf, 3, 4))) bs_error *
bsi_error(bs_code code, const struct path *path, const char *format, ...);

/** `BS_UNAVAILABLE`, which may pass. */
__attribute__((format(printf, 1, 2))) bs_error *bsi_unavailable(const char *format, ...);

/** The error in a reply, a map; `BS_INTERNAL` where it is none. A code that is not known keeps its name. */
bs_error *bsi_error_from(struct reader error);

/** A copy of an error of this library, without details; it may be `bsi_no_memory`. */
bs_error *bsi_error_copy(const bs_error *error);

void bsi_error_free(const bs_error *error);

#endif
