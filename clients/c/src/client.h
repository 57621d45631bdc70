/** A client from the inside. */

#ifndef BSI_CLIENT_H
#define BSI_CLIENT_H

#include <sys/types.h>

#include "call.h"
#include "pending.h"
#include "transport.h"

/** A connection that was made or lost, until the application was told. */
struct notice {
    bs_error *problem; /**< NULL if it was made. */
    struct notice *next;
};

struct bs_client {
    void *zmq;
    int epoll;
    pid_t process; /**< The one that made it: a fork has no part in its connection. */
    pid_t daemon;  /**< What `bs_open` started, until it is known to have ended; 0 if nothing. */
    struct location location;
    char *scope;
    int64_t timeout_ms;
    bs_client_options hooks;
    struct pending pending;
    struct transport transport;
    bs_error *problem; /**< Why there is no connection; NULL if there is one, or none was tried. */
    struct notice *notices;
    struct notice **last_notice;
    bs_error *error; /**< Of the latest function that failed. */
    int64_t last_seq;
};

/** Set what went wrong, and return its code. It takes the error over. */
bs_code bsi_fail(bs_client *client, bs_error *error);

/** The error for a process that did not make the client, but was forked from the one that did; NULL if it did. */
bs_error *bsi_check_process(const bs_client *client);

/** Send a request with an encoded payload, which it takes over; 0 if it is refused. */
bs_ticket bsi_send_encoded(
    bs_client *client,
    const char *type,
    const struct operation *operation,
    const struct result_type *result,
    struct buffer *payload,
    const bs_request *request,
    bs_callback callback,
    void *context);

/**
 * Do what there is to do, and wait for it until `until` if there is nothing. Returns how many callbacks were called, or −1 if
 * a signal was handled.
 */
int bsi_turn(bs_client *client, int64_t until);

/** When a wait of so many ms ends; negative is never. */
int64_t bsi_until(int timeout_ms);

/** A request whose outcome is waited for. */
struct waiting {
    bool is_done;
    bs_error *error;
    void *result;
    int64_t seq;
};

/** The callback of such a request; its context is the `struct waiting`. */
void bsi_arrived(void *context, bs_reply *reply);

/** Wait for it. */
void bsi_wait(bs_client *client, const struct waiting *waiting);

#endif
