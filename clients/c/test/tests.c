/**
 * Runs the tests whose names begin with one of the arguments, or all; two at a time.
 *
 *     tests [NAME …]
 */

#include "tests.h"

#include <errno.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TESTS_MAX = 200, AT_A_TIME = 2, SECONDS_MAX = 300, SECONDS_MAX_LONG = 3600 };

static struct test {
    const char *name;
    void (*run)(void);
} tests[TESTS_MAX];
static size_t count;

void test_add(const char *name, void (*run)(void)) {
    CHECK(count < TESTS_MAX);
    tests[count++] = (struct test){name, run};
}

bool is_long(void) {
    return getenv("LONG") != NULL;
}

static bool is_chosen(const char *name, int argc, char **argv) {
    for (int at = 1; at < argc; at++) {
        if (strncmp(name, argv[at], strlen(argv[at])) == 0) return true;
    }
    return argc < 2;
}

/** A test that runs. */
struct running {
    const struct test *test;
    pid_t process;
    struct timespec begun;
};

/** Start a test in a process of its own. */
static void start(struct running *running, const struct test *test) {
    fflush(stdout);
    running->test = test;
    clock_gettime(CLOCK_MONOTONIC, &running->begun);
    running->process = fork();
    CHECK(running->process >= 0);
    if (running->process > 0) return;
    alarm(is_long() ? SECONDS_MAX_LONG : SECONDS_MAX);
    test->run();
    clean_up();
    exit(0);
}

/** Wait until one of the tests has ended, which then is no longer one of them; whether it has passed. */
static bool await(struct running *running, size_t *many) {
    int status;
    struct timespec ended;
    pid_t process = waitpid(-1, &status, 0);
    size_t at = 0;
    while (at < *many && running[at].process != process) at++;
    if (at == *many) return process < 0 ? errno == EINTR : true;
    clock_gettime(CLOCK_MONOTONIC, &ended);
    const struct running *one = &running[at];
    double seconds = (double)(ended.tv_sec - one->begun.tv_sec) + (double)(ended.tv_nsec - one->begun.tv_nsec) / 1e9;
    bool has_passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    printf("%s %s (%.1f s)\n", has_passed ? "ok    " : "FAILED", one->test->name, seconds);
    running[at] = running[--*many];
    return has_passed;
}

int main(int argc, char **argv) {
    size_t failed = 0, chosen = 0, many = 0;
    struct running running[AT_A_TIME];
    for (size_t at = 0; at < count; at++) {
        if (!is_chosen(tests[at].name, argc, argv)) continue;
        chosen++;
        if (many == AT_A_TIME && !await(running, &many)) failed++;
        start(&running[many++], &tests[at]);
    }
    while (many > 0) {
        if (!await(running, &many)) failed++;
    }
    printf("%zu of %zu tests passed\n", chosen - failed, chosen);
    return failed > 0 || chosen == 0;
}
