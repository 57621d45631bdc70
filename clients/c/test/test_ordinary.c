/** The daemon with libzmq alone, without this client. */

#include <zmq.h>

#include "tests.h"

/** Send a body and receive the reply to it, which is the test's. */
static const char *exchange(void *socket, const char *body) {
    zmq_msg_t reply;
    CHECK(zmq_send(socket, body, strlen(body), 0) == (int)strlen(body));
    zmq_msg_init(&reply);
    CHECK(zmq_msg_recv(&reply, socket, 0) >= 0);
    const char *text = format("%.*s", (int)zmq_msg_size(&reply), (const char *)zmq_msg_data(&reply));
    zmq_msg_close(&reply);
    return text;
}

/** Rule: a DEALER of libzmq makes a round trip, and the same bytes again, also over another connection, get the same reply. */
TEST(an_ordinary_socket_can_be_a_client) {
    struct daemon daemon = daemon_start("");
    const char *body = "{\"id\": \"01JZ\", \"type\": \"create-user\", \"payload\": {\"pubkey\": \"k\"}}", *first = NULL;
    void *context = zmq_ctx_new();
    for (int connection = 0; connection < 2; connection++) {
        void *socket = zmq_socket(context, ZMQ_DEALER);
        int linger = 0, timeout = LONG_MS;
        zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout, sizeof timeout);
        CHECK(zmq_connect(socket, daemon_endpoint(&daemon)) == 0);
        CHECK_HAS(exchange(socket, "{\"id\": \"1\", \"type\": \"ping\"}"), "\"pong\":true");
        const char *reply = exchange(socket, body);
        CHECK_HAS(reply, "\"ok\":true");
        if (first == NULL) first = reply;
        CHECK(strcmp(first, reply) == 0);
        CHECK(strcmp(first, exchange(socket, body)) == 0);
        zmq_close(socket);
    }
    zmq_ctx_term(context);
}
