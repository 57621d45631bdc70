#include "ulid.h"

#include <sodium.h>
#include <string.h>
#include <time.h>

static const char ALPHABET[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

enum { TIME_BYTES = 6, BYTES = 16, DIGIT_BITS = 5 };

void bsi_ulid_new(struct ulid *last, char text[ULID_CHARS + 1]) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint8_t time[TIME_BYTES];
    for (int at = TIME_BYTES; at-- > 0; ms >>= 8) time[at] = (uint8_t)ms;
    if (memcmp(time, last->bytes, TIME_BYTES) > 0) {
        memcpy(last->bytes, time, TIME_BYTES);
        randombytes_buf(last->bytes + TIME_BYTES, BYTES - TIME_BYTES);
    } else {
        for (int at = BYTES; at-- > 0 && ++last->bytes[at] == 0;) continue;
    }
    // 26 digits have 130 bits: the first one begins two bits before the bytes.
    for (int digit = 0; digit < ULID_CHARS; digit++) {
        int value = 0;
        for (int bit = DIGIT_BITS * digit - 2; bit < DIGIT_BITS * (digit + 1) - 2; bit++) {
            value = value << 1 | (bit < 0 ? 0 : last->bytes[bit / 8] >> (7 - bit % 8) & 1);
        }
        text[digit] = ALPHABET[value];
    }
    text[ULID_CHARS] = '\0';
}
