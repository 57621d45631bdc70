/** Where a daemon is, what it takes to be served there, and whether what answers there is that daemon. */

#ifndef BSI_ADDRESS_H
#define BSI_ADDRESS_H

#include "errors.h"

enum { NONCE_CHARS = 32, DIGEST_CHARS = 64, KEY_CHARS = 40 };

/** How to find a daemon; each may be NULL. */
struct location {
    char *data_dir;
    char *endpoint;
    char *token;
    char *keys_file;
};

/** An endpoint, and what its daemon asks for. */
struct address {
    char *endpoint;
    char *token; /**< NULL over ipc. */
    bool has_keys;
    char server_key[KEY_CHARS + 1];
    char public_key[KEY_CHARS + 1];
    char secret_key[KEY_CHARS + 1];
};

/**
 * Find the daemon. Its files are read anew each time, because a daemon that was started again may have another address and
 * another token. `BS_UNAVAILABLE` if none is ready, `BS_UNAUTHENTICATED` if there is no token for it.
 */
bs_error *bsi_address_find(const struct location *location, struct address *address);

/** Free what an address has; it may be zero. */
void bsi_address_clear(struct address *address);

/** `BS_INVALID` if this is no address that this client can use. */
bs_error *bsi_endpoint_check(const char *endpoint);

/** Whether two addresses begin alike. */
bool bsi_begins_with(const char *text, const char *beginning);

/** `before`, `between` and `after` in new memory; NULL if there is none. */
char *bsi_joined(const char *before, const char *between, const char *after);

/** Write a random nonce in hex. */
void bsi_nonce_new(char nonce[NONCE_CHARS + 1]);

/** Append the request whose answer proves that a daemon knows a token, before the token is sent. */
void bsi_hello_pack(const char *token, const char *nonce, struct buffer *body);

/** The error for an answer to it that proves nothing; NULL if it does. */
bs_error *bsi_hello_check(const struct address *address, const char *nonce, const void *body, size_t size);

/** What a daemon that knows a token answers, in hex. */
void bsi_proof_of(
    const char *token, const char *nonce, const bs_text *endpoints, size_t count, char proof[DIGEST_CHARS + 1]);

#endif
