/**
 * One connection to a daemon: a DEALER socket of libzmq, and its monitor, which tells when it is made and when it is lost.
 *
 * libzmq would reconnect by itself and say nothing. What is sent then could overtake what was lost with the old
 * connection. So a socket has one connection, and for the next one there is another socket.
 */

#ifndef BSI_WIRE_H
#define BSI_WIRE_H

#include <zmq.h>

#include "address.h"

struct wire {
    void *socket; /**< NULL if there is none. */
    void *monitor;
    bool is_ready;      /**< Requests can be sent. */
    const char *reason; /**< Why it is lost; NULL if it is not. What has arrived before can still be received. */
};

/** Begin to connect. The name of a host stands for its address of IPv4, or for that of IPv6. */
bs_error *bsi_wire_open(void *context, const struct address *address, bool resolves_to_ipv6, struct wire *wire);

void bsi_wire_close(struct wire *wire);

/** Take note of what the monitor tells. */
void bsi_wire_notice(struct wire *wire);

/** Receive the body of the next message; false if there is none. */
bool bsi_wire_receive(struct wire *wire, zmq_msg_t *body);

/** Send a message, whose bytes it takes over; false if there is no memory. */
bool bsi_wire_send(struct wire *wire, struct buffer *body);

/** Whether something can be received. */
bool bsi_wire_has_input(const struct wire *wire);

/** Wait for input, at most so many ms, or with −1 as long as it takes; false if a signal was handled. */
bool bsi_wire_wait(const struct wire *wire, int timeout_ms);

/** The two file descriptors that become readable with input. */
void bsi_wire_fds(const struct wire *wire, int fds[2]);

#endif
