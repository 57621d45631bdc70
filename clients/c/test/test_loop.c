/** A client in an event loop of the application. */

#include <poll.h>

#include "tests.h"

enum { REQUESTS = 200 };

static void count(void *context, bs_reply *reply) {
    CHECK(reply->code == BS_OK);
    ++*(int *)context;
}

/** Rule: an event loop that waits for `bs_fd` and `bs_timeout`, and then polls without waiting, misses nothing. */
TEST(an_event_loop_needs_no_waiting_call) {
    struct daemon daemon = daemon_start("");
    bs_client *client = client_of(daemon.data_dir);
    int done = 0, turns = 0;
    for (int number = 0; number < REQUESTS; number++) {
        bs_save_message_payload save = message_of(number, "x");
        CHECK(bs_save_message_send(client, &save, NULL, count, &done) != 0);
    }
    for (; done < REQUESTS; turns++) {
        struct pollfd file = {.fd = bs_fd(client), .events = POLLIN};
        int timeout = bs_timeout(client);
        CHECK(timeout < LONG_MS + 1 && poll(&file, 1, timeout) >= 0);
        (void)bs_poll(client, 0);
        if (done == REQUESTS / 2) daemon_restart(&daemon);
    }
    CHECK(turns < 100 * REQUESTS && bs_timeout(client) == -1);
    // Nothing is left to do: the loop sleeps.
    struct pollfd file = {.fd = bs_fd(client), .events = POLLIN};
    (void)bs_poll(client, 0);
    CHECK(poll(&file, 1, 50) == 0);
}
