#include "transport.h"

#include <sys/epoll.h>
#include <time.h>

#include "pending.h"

/** The delay after a connection that was lost or refused; it doubles up to the second until a reply comes. */
#define RECONNECT_DELAY (25 * MS)
#define RECONNECT_DELAY_MAX (1000 * MS)
/** How long a connection may take until requests can be sent. */
enum { CONNECT_TIMEOUT_MS = 2000 };

int64_t bsi_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 * MS + now.tv_nsec / 1000;
}

void bsi_transport_init(struct transport *transport, void *context, const struct location *location, int epoll) {
    *transport = (struct transport){
        .context = context,
        .location = location,
        .delay = RECONNECT_DELAY,
        .connect_by = NEVER,
        .epoll = epoll,
    };
}

/** Have the file descriptor of an event loop tell of this connection. */
static void enlist(struct transport *transport) {
    int fds[2];
    if (transport->epoll < 0) return;
    bsi_wire_fds(&transport->wire, fds);
    for (int at = 0; at < 2; at++) {
        struct epoll_event event = {.events = EPOLLIN};
        (void)epoll_ctl(transport->epoll, EPOLL_CTL_ADD, fds[at], &event);
    }
}

static void close_wire(struct transport *transport) {
    if (transport->wire.socket != NULL && transport->epoll >= 0) {
        int fds[2];
        bsi_wire_fds(&transport->wire, fds);
        for (int at = 0; at < 2; at++) (void)epoll_ctl(transport->epoll, EPOLL_CTL_DEL, fds[at], NULL);
    }
    bsi_wire_close(&transport->wire);
    bsi_address_clear(&transport->address);
    transport->is_connected = false;
    transport->connect_by = NEVER;
}

void bsi_transport_close(struct transport *transport) {
    transport->is_active = false;
    close_wire(transport);
}

static enum transport_event lost(struct transport *transport, int64_t now) {
    if (!transport->wire.is_ready) transport->resolves_to_ipv6 = !transport->resolves_to_ipv6;
    close_wire(transport);
    transport->reconnect_at = now + transport->delay;
    transport->delay = 2 * transport->delay < RECONNECT_DELAY_MAX ? 2 * transport->delay : RECONNECT_DELAY_MAX;
    return TRANSPORT_LOST;
}

static enum transport_event connected(struct transport *transport, int64_t now) {
    transport->is_connected = true;
    transport->connect_by = NEVER;
    transport->received_at = now;
    return TRANSPORT_CONNECTED;
}

static enum transport_event begin_to_connect(struct transport *transport, int64_t now, bs_error **problem) {
    *problem = bsi_address_find(transport->location, &transport->address);
    if (*problem == NULL) {
        *problem =
            bsi_wire_open(transport->context, &transport->address, transport->resolves_to_ipv6, &transport->wire);
    }
    if (*problem != NULL) return lost(transport, now);
    transport->connect_by = now + CONNECT_TIMEOUT_MS * MS;
    enlist(transport);
    return TRANSPORT_IDLE;
}

static bool needs_greeting(const struct transport *transport) {
    return transport->address.token != NULL && !transport->address.has_keys;
}

/** The socket is ready: connected, or over tcp the first to say is hello. */
static enum transport_event greet(struct transport *transport, int64_t now) {
    if (!needs_greeting(transport)) return connected(transport, now);
    if (*transport->nonce != '\0') return TRANSPORT_IDLE;
    struct buffer hello = {0};
    bsi_nonce_new(transport->nonce);
    bsi_hello_pack(transport->address.token, transport->nonce, &hello);
    (void)bsi_wire_send(&transport->wire, &hello); // without memory no answer comes in time
    return TRANSPORT_IDLE;
}

static enum transport_event received(struct transport *transport, int64_t now, zmq_msg_t *body, bs_error **problem) {
    transport->received_at = now;
    if (transport->is_connected) {
        transport->delay = RECONNECT_DELAY; // and not before: a daemon may accept connections only to end them
        return TRANSPORT_REPLY;
    }
    *problem = bsi_hello_check(&transport->address, transport->nonce, zmq_msg_data(body), zmq_msg_size(body));
    return *problem == NULL ? connected(transport, now) : lost(transport, now);
}

enum transport_event bsi_transport_next(struct transport *transport, int64_t now, zmq_msg_t *body, bs_error **problem) {
    *problem = NULL;
    struct wire *wire = &transport->wire;
    if (wire->socket == NULL) {
        if (!transport->is_active || now < transport->reconnect_at) return TRANSPORT_IDLE;
        *transport->nonce = '\0';
        enum transport_event event = begin_to_connect(transport, now, problem);
        if (event != TRANSPORT_IDLE) return event;
    }
    bsi_wire_notice(wire);
    if (wire->is_ready && !transport->is_connected && wire->reason == NULL) {
        enum transport_event event = greet(transport, now);
        if (event != TRANSPORT_IDLE) return event;
    }
    // What arrived before the loss is received first; but nothing that was sent unasked, before this side has greeted.
    bool has_greeted = transport->is_connected || *transport->nonce != '\0';
    if (has_greeted && bsi_wire_receive(wire, body)) return received(transport, now, body, problem);
    if (wire->reason != NULL) {
        *problem = bsi_unavailable("no daemon answers at %s: %s", transport->address.endpoint, wire->reason);
        return lost(transport, now);
    }
    if (now < transport->connect_by) return TRANSPORT_IDLE;
    *problem = bsi_unavailable(
        "no daemon answers at %s: it did not let the client connect within %d ms", transport->address.endpoint,
        (int)CONNECT_TIMEOUT_MS);
    return lost(transport, now);
}

void bsi_transport_set_active(struct transport *transport, bool is_active, int64_t now) {
    if (is_active && !transport->is_active && transport->wire.socket == NULL) transport->reconnect_at = now;
    transport->is_active = is_active;
}

const char *bsi_transport_token(const struct transport *transport) {
    return transport->address.token;
}

bool bsi_transport_send(struct transport *transport, struct buffer *body) {
    return bsi_wire_send(&transport->wire, body);
}

void bsi_transport_drop(struct transport *transport, const char *reason) {
    if (transport->wire.socket != NULL && transport->wire.reason == NULL) transport->wire.reason = reason;
}

int64_t bsi_transport_timer(const struct transport *transport) {
    if (transport->wire.socket != NULL) return transport->wire.reason != NULL ? 0 : transport->connect_by;
    return transport->is_active ? transport->reconnect_at : NEVER;
}
