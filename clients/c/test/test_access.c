/** Who is calling: tokens, and whether what answers is the daemon. */

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/transport.h"
#include "tests.h"

static const char *last_line(const char *text) {
    const char *feed = strrchr(text, '\n');
    return feed == NULL ? text : feed + 1;
}

/** Make a token with these flags. */
static const char *token_of(const struct daemon *daemon, const char *flags) {
    const char *command = "%s token create bot %s --data-dir %s 2>/dev/null";
    return last_line(printed(format(command, backscroll(), flags, daemon->data_dir)));
}

/** A reason to have no connection that is waited for, and whether it was told. */
struct problem {
    const char *message;
    bool is_told;
};

static void note_problem(void *context, const bs_error *error) {
    struct problem *problem = context;
    if (error != NULL && strstr(error->message, problem->message) != NULL) problem->is_told = true;
}

static bool is_told(void *context) {
    return ((struct problem *)context)->is_told;
}

/** Check that a client says this, and that its request is not sent. */
static void check_not_trusted(bs_client_options options, const char *message) {
    struct problem problem = {.message = message};
    options.timeout_ms = LONG_MS;
    options.on_connection = note_problem;
    options.context = &problem;
    bs_client *client = client_with(options);
    bs_save_message_payload save = message_of(1, "a secret");
    bs_code code = BS_OK;
    CHECK(bs_save_message_send(client, &save, NULL, keep_code, &code) != 0);
    wait_until(client, is_told, &problem);
    bs_close(client);
    CHECK(code == BS_UNAVAILABLE);
}

/** Rule: a token without the right or the scope is forbidden; a revoked one is unauthenticated, and says so. */
TEST(a_token_without_the_right_is_forbidden) {
    struct daemon daemon = daemon_start(TCP);
    const char *endpoint = daemon_endpoint(&daemon), *token = token_of(&daemon, "--right read --scope ada");
    bs_client_options options = {.endpoint = endpoint, .token = token, .scope = "ada", .timeout_ms = LONG_MS};
    bs_client *client = client_with(options);
    bs_save_message_payload save = message_of(1, "x");
    CHECK_CODE(client, BS_OK, bs_list_users(client, NULL, NULL, NULL));
    CHECK_CODE(client, BS_FORBIDDEN, bs_save_message(client, &save, NULL));
    options.scope = "bob";
    bs_client *elsewhere = client_with(options);
    CHECK_CODE(elsewhere, BS_FORBIDDEN, bs_list_users(elsewhere, NULL, NULL, NULL));
    (void)printed(format("%s token revoke bot --data-dir %s 2>&1", backscroll(), daemon.data_dir));
    CHECK_CODE(client, BS_UNAUTHENTICATED, bs_list_users(client, NULL, NULL, NULL));
    options.scope = "ada";
    bs_client *after = client_with(options);
    CHECK_CODE(after, BS_UNAUTHENTICATED, bs_list_users(after, NULL, NULL, NULL));
    CHECK_HAS(bs_last_error(after)->message, "does not know the token \"bot\": it was revoked, has expired, or is for");
}

/** Rule: a token that may write may not administer; a host has a name, which may stand for an address of IPv6 too. */
TEST(a_token_that_may_write_may_not_administer) {
    struct daemon daemon = daemon_start(TCP);
    const char *endpoint = format("tcp://localhost:%s", strrchr(daemon_endpoint(&daemon), ':') + 1);
    bs_client *client = client_with(
        (bs_client_options){.endpoint = endpoint, .token = token_of(&daemon, "--right write"), .timeout_ms = LONG_MS});
    bs_save_message_payload save = message_of(1, "x");
    CHECK_CODE(client, BS_OK, bs_save_message(client, &save, NULL));
    CHECK_CODE(client, BS_FORBIDDEN, bs_get_log(client, NULL, NULL, NULL));
    CHECK_CODE(client, BS_FORBIDDEN, bs_delete_scope(client, NULL));
    CHECK_CODE(client, BS_FORBIDDEN, bs_list_tokens(client, NULL, NULL));
}

/** Rule: without a token it says at once where to get one; one that cannot be a token, and a wrong one, are refused. */
TEST(without_a_token_it_says_where_to_get_one) {
    struct daemon daemon = daemon_start(TCP);
    const char *endpoint = daemon_endpoint(&daemon);
    bs_client_options options = {.endpoint = endpoint, .data_dir = temporary_directory(), .timeout_ms = LONG_MS};
    bs_client *client = client_with(options);
    CHECK_CODE(client, BS_UNAUTHENTICATED, bs_ping(client, NULL, NULL));
    CHECK_HAS(bs_last_error(client)->message, "there is no token for tcp:");
    CHECK_HAS(bs_last_error(client)->message, "`backscroll token create`");
    options.token = "line\nbreak";
    client = client_with(options);
    CHECK_CODE(client, BS_INVALID, bs_ping(client, NULL, NULL));
    options.token = "a wrong one";
    check_not_trusted(options, "did not prove that it knows the token");
    options.token = "bot.wrong";
    client = client_with(options);
    bs_code code = bs_ping(client, &(bs_request){.timeout_ms = 300}, NULL);
    CHECK(code == BS_UNAVAILABLE || code == BS_UNAUTHENTICATED);
}

static json_t *answer_as_impostor(void *context, json_t *request) {
    (void)context;
    bool is_hello = strcmp(json_string_value(json_object_get(request, "type")), "hello") == 0;
    json_t *proof = json_pack("{s:s, s:[i, n, {}]}", "proof", format("%064d", 0), "endpoints", 5);
    if (is_hello) return ok_reply(request, proof);
    json_decref(proof);
    return ok_reply(request, json_null());
}

/** Rule: a program that has a killed daemon's port gets neither token nor requests. */
TEST(an_impostor_on_the_old_port_gets_nothing) {
    struct daemon daemon = daemon_start(TCP);
    const char *endpoint = daemon_endpoint(&daemon), *token = daemon_token(&daemon);
    struct problem problem = {.message = "did not prove that it knows the token: it is another program"};
    bs_client *client = client_with((bs_client_options){
        .data_dir = daemon.data_dir, .timeout_ms = LONG_MS, .on_connection = note_problem, .context = &problem});
    bs_save_message_payload first = message_of(1, "x"), second = message_of(2, "a secret");
    CHECK_CODE(client, BS_OK, bs_save_message(client, &first, NULL));
    daemon_kill(&daemon);
    struct fake *impostor = fake_start(endpoint, answer_as_impostor, NULL);
    bs_code code = BS_OTHER;
    CHECK(bs_save_message_send(client, &second, NULL, keep_code, &code) != 0);
    wait_until(client, is_told, &problem);
    json_t *requests = fake_stop(impostor), *each;
    size_t index;
    CHECK(json_array_size(requests) > 0);
    json_array_foreach(requests, index, each) {
        char *text = json_dumps(each, 0);
        CHECK(strcmp(json_string_value(json_object_get(each, "type")), "hello") == 0);
        CHECK(json_object_get(each, "auth") == NULL);
        CHECK(strstr(text, token) == NULL && strstr(text, "secret") == NULL);
        free(text);
    }
    daemon_restart(&daemon);
    while (bs_pending(client) > 0) bs_poll(client, -1);
    CHECK(code == BS_OK);
}

/** A tcp port that passes on what it gets to another one. */
struct passing {
    int listener;
    int target;
    atomic_bool is_stopped;
    char seen[65536];
    size_t size;
};

static struct sockaddr_in local(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void *pass_on(void *thing) {
    struct passing *passing = thing;
    int ends[2] = {-1, -1};
    while (!passing->is_stopped) {
        struct pollfd files[] = {{passing->listener, POLLIN, 0}, {ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}};
        poll(files, 3, 10);
        if (files[0].revents != 0) {
            struct sockaddr_in address = local(passing->target);
            for (int at = 0; at < 2; at++) close(ends[at]);
            ends[0] = accept(passing->listener, NULL, NULL);
            ends[1] = socket(AF_INET, SOCK_STREAM, 0);
            CHECK(connect(ends[1], (struct sockaddr *)&address, sizeof address) == 0);
            continue;
        }
        for (int at = 0; at < 2; at++) {
            char chunk[4096];
            ssize_t size = files[at + 1].revents != 0 ? recv(ends[at], chunk, sizeof chunk, 0) : -1;
            if (size <= 0) continue;
            if (at == 0 && passing->size + (size_t)size < sizeof passing->seen) {
                memcpy(passing->seen + passing->size, chunk, (size_t)size);
                passing->size += (size_t)size;
            }
            (void)send(ends[1 - at], chunk, (size_t)size, MSG_NOSIGNAL);
        }
    }
    for (int at = 0; at < 2; at++) close(ends[at]);
    return NULL;
}

/** Rule: a program that passes on what the daemon says, a real proof, gets neither token nor requests. */
TEST(a_program_that_passes_on_a_real_proof_gets_nothing) {
    struct daemon daemon = daemon_start(TCP);
    const char *token = daemon_token(&daemon);
    struct passing *passing = calloc(1, sizeof *passing);
    struct sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    CHECK(passing != NULL);
    passing->listener = socket(AF_INET, SOCK_STREAM, 0);
    passing->target = atoi(strrchr(daemon_endpoint(&daemon), ':') + 1);
    CHECK(bind(passing->listener, (struct sockaddr *)&address, size) == 0 && listen(passing->listener, 8) == 0);
    CHECK(getsockname(passing->listener, (struct sockaddr *)&address, &size) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, pass_on, passing) == 0);
    const char *endpoint = format("tcp://127.0.0.1:%d", ntohs(address.sin_port));
    check_not_trusted(
        (bs_client_options){.endpoint = endpoint, .token = token},
        "did not prove that it knows the token: it is another program");
    passing->is_stopped = true;
    pthread_join(thread, NULL);
    CHECK(memmem(passing->seen, passing->size, "hello", 5) != NULL);
    CHECK(memmem(passing->seen, passing->size, token, strlen(token)) == NULL);
    CHECK(memmem(passing->seen, passing->size, "secret", 6) == NULL);
    close(passing->listener);
    free(passing);
}

static json_t *refuse_hello(void *context, json_t *request) {
    (void)context;
    return refusal(request, "unknown-operation", "caller", false);
}

/** Rule: a host whose name is not known is said at once. */
TEST(an_unknown_host_is_told) {
    // Too long for a name, so that nobody is asked.
    bs_client_options options = {.endpoint = format("tcp://x%0100d:5555", 0), .token = "bot.secret"};
    check_not_trusted(options, "its host is not known by that name");
}

/** Rule: a daemon that refuses hello is not trusted. */
TEST(a_daemon_that_refuses_hello_is_not_trusted) {
    struct fake *fake = fake_start("tcp://127.0.0.1:*", refuse_hello, NULL);
    bs_client_options options = {.endpoint = fake_endpoint(fake), .token = "bot.secret"};
    check_not_trusted(options, "knows the token and answered \"unknown-operation\"");
    char *requests = json_dumps(fake_stop(fake), 0);
    CHECK(strstr(requests, "secret") == NULL);
    free(requests);
}

/** Rule: what is said before this side has greeted is not read as an answer, whenever the monitor tells that it is ready. */
TEST(what_is_said_unasked_is_no_answer) {
    static const char UNASKED[] = "\x82\xa2ok\xc2\xa5"
                                  "error\x81\xa4"
                                  "code\xaf"
                                  "unauthenticated";
    void *context = zmq_ctx_new(), *server = zmq_socket(context, ZMQ_DEALER), *silent = zmq_socket(context, ZMQ_PAIR);
    struct location location = {.endpoint = format("ipc://%s/e", temporary_directory())};
    struct transport transport;
    zmq_msg_t body;
    bs_error *problem;
    CHECK(zmq_bind(server, location.endpoint) == 0);
    zmq_msg_init(&body);
    bsi_transport_init(&transport, context, &location, -1);
    transport.address.endpoint = bsi_joined(location.endpoint, "", "");
    CHECK(bsi_wire_open(context, &transport.address, false, &transport.wire) == NULL);
    CHECK(zmq_send(server, UNASKED, sizeof UNASKED - 1, 0) > 0);
    zmq_pollitem_t item = {transport.wire.socket, 0, ZMQ_POLLIN, 0};
    CHECK(zmq_poll(&item, 1, LONG_MS) == 1);
    void *monitor = transport.wire.monitor;
    transport.wire.monitor = silent;
    CHECK(bsi_transport_next(&transport, bsi_now(), &body, &problem) == TRANSPORT_IDLE);
    transport.wire.monitor = monitor;
    CHECK(bsi_transport_next(&transport, bsi_now(), &body, &problem) == TRANSPORT_CONNECTED);
    zmq_msg_close(&body);
    bsi_transport_close(&transport);
    zmq_close(silent);
    zmq_close(server);
    zmq_ctx_term(context);
}
