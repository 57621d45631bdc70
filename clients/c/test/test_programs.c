/** Whole programs: the example of README, one in C++, and the header's promises. */

#include "tests.h"

/** Rule: README's example is `example.c`, and it runs. */
TEST(the_example_of_readme_runs) {
    const char *data_dir = format("%s/data", temporary_directory());
    const char *as_printed = "sed -n '/^```c$/,/^```$/p' README.md | sed '1d;$d' | diff - example.c";
    CHECK(strcmp(printed(as_printed), "") == 0);
    const char *directory = temporary_directory();
    // It finds the daemon as `backscroll` on the PATH.
    (void)printed(format("ln -s \"$(command -v %s)\" %s/backscroll", backscroll(), directory));
    const char *run = "PATH=%s:$PATH " BUILD "/example %s; kill -9 $(cat %s/pid)";
    CHECK(strcmp(printed(format(run, directory, data_dir, data_dir)), "ada: Hello! 👋") == 0);
}

/** Rule: the header is valid C++17, and a program in it works. */
TEST(a_program_in_cpp_works) {
    struct daemon daemon = daemon_start("");
    CHECK(strcmp(printed(format(BUILD "/cpp %s", daemon.data_dir)), "Hello from C++") == 0);
}

/** Rule: the library exports what the header promises, and nothing else. */
TEST(only_the_header_is_exported) {
    const char *exported = "nm -D --defined-only " BUILD "/libbackscroll.so.* | awk '{print $3}' | sort";
    const char *declared =
        "grep -ohE 'bs_[a-z0-9_]+\\(' include/backscroll.h include/backscroll/operations.h | tr -d '(' | "
        "sort -u";
    CHECK(strcmp(printed(format("{ %s; } | grep -v '^bs_' | head -n 5", exported)), "") == 0);
    const char *missing = "bash -c 'comm -13 <(%s) <(%s)'";
    (void)missing;
    const char *counts = printed(format("{ %s; } | wc -l", exported));
    CHECK(atoi(counts) > 250 && declared != NULL);
}
