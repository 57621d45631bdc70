/**
 * A connection to a daemon, made anew when it is lost. Where the daemon is, is looked up for each connection.
 *
 * Over tcp the daemon first proves with `hello` that it knows the token; until then neither token nor requests are sent.
 * Over CURVE its key proves that.
 */

#ifndef BSI_TRANSPORT_H
#define BSI_TRANSPORT_H

#include "wire.h"

/** What happened to a transport. */
enum transport_event {
    TRANSPORT_IDLE,      /**< Nothing. */
    TRANSPORT_CONNECTED, /**< Requests can be sent. */
    TRANSPORT_REPLY,     /**< A message has arrived. */
    TRANSPORT_LOST,      /**< There is no connection, or none any more. */
};

struct transport {
    void *context; /**< Of libzmq. */
    const struct location *location;
    struct address address;
    struct wire wire;
    char nonce[NONCE_CHARS + 1];
    bool
        resolves_to_ipv6; /**< Which address of a host's name is tried: libzmq tries only one, and has no second try. */
    bool is_connected;
    bool is_active;
    int64_t delay;        /**< Before the next connection. */
    int64_t reconnect_at; /**< When to make the next connection. */
    int64_t connect_by;   /**< When the current one is given up, unless it is made; `NEVER` if it is. */
    int64_t received_at;  /**< When the latest reply arrived on the current connection. */
    int epoll;            /**< Readable when the connection's sockets have something to do; −1 for none. */
};

void bsi_transport_init(struct transport *transport, void *context, const struct location *location, int epoll);
void bsi_transport_close(struct transport *transport);

/**
 * The next thing that happened until now: a reply is put into `body`, and why a connection was lost into `problem`, which the
 * caller frees.
 */
enum transport_event bsi_transport_next(struct transport *transport, int64_t now, zmq_msg_t *body, bs_error **problem);

/** Say whether there are calls: while there are, the connection is made again whenever it is lost. */
void bsi_transport_set_active(struct transport *transport, bool is_active, int64_t now);

/** The token to send with each request; NULL over ipc. */
const char *bsi_transport_token(const struct transport *transport);

/** Send a request, whose bytes it takes over; false if there is no memory. */
bool bsi_transport_send(struct transport *transport, struct buffer *body);

/** Give up the current connection; it is told as lost. */
void bsi_transport_drop(struct transport *transport, const char *reason);

/** When `bsi_transport_next` has something to do although nothing arrives; `NEVER` for never. */
int64_t bsi_transport_timer(const struct transport *transport);

/** Microseconds of the monotonic clock. */
int64_t bsi_now(void);

#endif
