/** Tests: each runs in a process of its own. */

#ifndef TESTS_H
#define TESTS_H

#include "support.h"

/** Whether the long forms of tests run. */
bool is_long(void);

void test_add(const char *name, void (*run)(void));

/** A test, by a name that states the rule. */
#define TEST(name)                                                                                                     \
    static void name(void);                                                                                            \
    __attribute__((constructor)) static void name##_add(void) {                                                        \
        test_add(#name, name);                                                                                         \
    }                                                                                                                  \
    static void name(void)

#define TCP "--endpoint 'tcp://127.0.0.1:*'"

#endif
