/**
 * Runs the tests whose names begin with one of the arguments, or all.
 *
 *     tests [NAME …]
 */

#include "tests.h"

#include <errno.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TESTS_MAX = 200, SECONDS_MAX = 300, SECONDS_MAX_LONG = 3600 };

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

/** Run a test in a process of its own; whether it passes. */
static bool passes(const struct test *test) {
    fflush(stdout);
    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0) {
        alarm(is_long() ? SECONDS_MAX_LONG : SECONDS_MAX);
        test->run();
        clean_up();
        exit(0);
    }
    int status;
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    size_t failed = 0, chosen = 0;
    for (size_t at = 0; at < count; at++) {
        if (!is_chosen(tests[at].name, argc, argv)) continue;
        chosen++;
        struct timespec begun, ended;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        bool has_passed = passes(&tests[at]);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        double seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
        printf("%s %s (%.1f s)\n", has_passed ? "ok    " : "FAILED", tests[at].name, seconds);
        if (!has_passed) failed++;
    }
    printf("%zu of %zu tests passed\n", chosen - failed, chosen);
    return failed > 0 || chosen == 0;
}
