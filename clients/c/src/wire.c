#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** A socket that never reconnects by itself (−1) could not be read any more after it was disconnected. */
enum { A_DAY_MS = 24 * 60 * 60 * 1000 };
enum { UNBOUNDED = 0, NO_LINGER = 0 };

static const int FAILED =
    ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

static bool set_integer(void *socket, int option, int value) {
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool set_options(void *socket, bool has_ipv6) {
    int64_t frame = BS_FRAME_BYTES_MAX;
    return set_integer(socket, ZMQ_LINGER, NO_LINGER) && set_integer(socket, ZMQ_IPV6, has_ipv6) &&
           set_integer(socket, ZMQ_SNDHWM, UNBOUNDED) && set_integer(socket, ZMQ_RECONNECT_IVL, A_DAY_MS) &&
           zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame, sizeof frame) == 0;
}

static bool set_keys(void *socket, const struct address *address) {
    return zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, address->server_key, KEY_CHARS + 1) == 0 &&
           zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, address->public_key, KEY_CHARS + 1) == 0 &&
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, address->secret_key, KEY_CHARS + 1) == 0;
}

/** Have the monitor tell about the socket's connection. */
static bool monitor(void *context, struct wire *wire) {
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "inproc://monitor-%p", wire->socket);
    int events =
        FAILED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED;
    if (zmq_socket_monitor(wire->socket, endpoint, events) != 0) return false;
    wire->monitor = zmq_socket(context, ZMQ_PAIR);
    return wire->monitor != NULL && set_integer(wire->monitor, ZMQ_LINGER, NO_LINGER) &&
           zmq_connect(wire->monitor, endpoint) == 0;
}

/** Connect; `curve://HOST:PORT` is connected to as `tcp://HOST:PORT`. */
static bool connect_to(void *socket, const char *endpoint) {
    const char *host = bsi_begins_with(endpoint, "curve://") ? endpoint + strlen("curve://") : NULL;
    char *tcp = host == NULL ? NULL : bsi_joined("tcp://", host, "");
    bool is_begun = zmq_connect(socket, tcp != NULL ? tcp : endpoint) == 0;
    int problem = zmq_errno();
    free(tcp);
    errno = problem;
    return is_begun;
}

bs_error *bsi_wire_open(void *context, const struct address *address, bool resolves_to_ipv6, struct wire *wire) {
    bool has_ipv6 = resolves_to_ipv6 || strstr(address->endpoint, "://[") != NULL;
    *wire = (struct wire){.socket = zmq_socket(context, ZMQ_DEALER)};
    if (wire->socket == NULL) return bsi_unavailable("cannot make a socket: %s", zmq_strerror(zmq_errno()));
    bs_error *error = NULL;
    if (!set_options(wire->socket, has_ipv6) || !monitor(context, wire)) {
        error = bsi_unavailable("cannot set up a socket: %s", zmq_strerror(zmq_errno()));
    } else if (address->has_keys && !set_keys(wire->socket, address)) {
        error = bsi_error(
            BS_INVALID, NULL,
            "the keys for %s are not CURVE keys, or libzmq was built without CURVE: make them with `backscroll keys "
            "create`",
            address->endpoint);
    } else if (!connect_to(wire->socket, address->endpoint)) {
        error =
            bsi_error(BS_INVALID, NULL, "cannot connect to \"%s\": %s", address->endpoint, zmq_strerror(zmq_errno()));
    }
    if (error != NULL) bsi_wire_close(wire);
    return error;
}

void bsi_wire_close(struct wire *wire) {
    if (wire->socket != NULL) {
        zmq_socket_monitor(wire->socket, NULL, 0);
        zmq_close(wire->socket);
    }
    if (wire->monitor != NULL) zmq_close(wire->monitor);
    *wire = (struct wire){0};
}

/** Receive a frame; false if there is none. What is in the message before is released. */
static bool receive_frame(void *socket, zmq_msg_t *frame) {
    int size;
    do size = zmq_msg_recv(frame, socket, ZMQ_DONTWAIT);
    while (size < 0 && zmq_errno() == EINTR);
    return size >= 0;
}

/** Receive a message; false if there is none. Its last frame is the body, those before it carry nothing. */
static bool receive(void *socket, zmq_msg_t *body) {
    do {
        if (!receive_frame(socket, body)) return false;
    } while (zmq_msg_more(body));
    return true;
}

static const char *reason_of(int event, bool is_ready) {
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return "the daemon does not let this user or key connect";
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return "what answers there does not speak ZMTP 3 as a daemon does";
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return "the connection was closed before it was ready";
    case ZMQ_EVENT_DISCONNECTED:
        return "the connection was closed";
    case ZMQ_EVENT_CONNECT_RETRIED: // without another event before it nothing was tried
        return "its host is not known by that name, or no socket could be made";
    default:
        return is_ready ? "the connection was closed" : "nothing listens there";
    }
}

void bsi_wire_notice(struct wire *wire) {
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    // The first frame of an event begins with its number, in 16 bits; the second one is the address.
    while (receive_frame(wire->monitor, &frame)) {
        uint16_t event;
        if (zmq_msg_size(&frame) >= sizeof event) {
            memcpy(&event, zmq_msg_data(&frame), sizeof event);
            if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
                wire->is_ready = true;
            else if (wire->reason == NULL)
                wire->reason = reason_of(event, wire->is_ready);
        }
        if (zmq_msg_more(&frame) && !receive(wire->monitor, &frame)) break;
    }
    zmq_msg_close(&frame);
}

bool bsi_wire_receive(struct wire *wire, zmq_msg_t *body) {
    return receive(wire->socket, body);
}

static void release(void *data, void *hint) {
    (void)hint;
    free(data);
}

bool bsi_wire_send(struct wire *wire, struct buffer *body) {
    zmq_msg_t message;
    if (body->failed || zmq_msg_init_data(&message, body->data, body->size, release, NULL) != 0) {
        bsi_buffer_free(body);
        return false;
    }
    *body = (struct buffer){0};
    int sent;
    do sent = zmq_msg_send(&message, wire->socket, ZMQ_DONTWAIT);
    while (sent < 0 && zmq_errno() == EINTR);
    if (sent < 0) zmq_msg_close(&message); // the connection is lost, which the monitor tells
    return true;
}

static bool is_readable(void *socket) {
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN) != 0;
}

bool bsi_wire_has_input(const struct wire *wire) {
    return wire->socket != NULL && (is_readable(wire->socket) || is_readable(wire->monitor));
}

bool bsi_wire_wait(const struct wire *wire, int timeout_ms) {
    if (wire->socket == NULL) return poll(NULL, 0, timeout_ms) >= 0 || errno != EINTR;
    zmq_pollitem_t items[] = {{wire->socket, 0, ZMQ_POLLIN, 0}, {wire->monitor, 0, ZMQ_POLLIN, 0}};
    return zmq_poll(items, 2, timeout_ms) >= 0 || zmq_errno() != EINTR;
}

void bsi_wire_fds(const struct wire *wire, int fds[2]) {
    size_t size = sizeof *fds;
    zmq_getsockopt(wire->socket, ZMQ_FD, &fds[0], &size);
    size = sizeof *fds;
    zmq_getsockopt(wire->monitor, ZMQ_FD, &fds[1], &size);
}
