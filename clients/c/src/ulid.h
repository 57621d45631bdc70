/** ULIDs: request ids of 26 characters that sort by time, which keeps the daemon's indexes compact. */

#ifndef BSI_ULID_H
#define BSI_ULID_H

#include <stdint.h>

enum { ULID_CHARS = 26 };

/** The latest id: 48 bits of time and 80 random ones. */
struct ulid {
    uint8_t bytes[16];
};

/** Write a new id, greater than the one before even if the clock goes back, and a NUL. */
void bsi_ulid_new(struct ulid *last, char text[ULID_CHARS + 1]);

#endif
