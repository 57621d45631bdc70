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

/** Rule: without an option, `bs_open` starts the sidecar that lies beside the library, and needs nothing on the PATH. */
TEST(the_sidecar_beside_the_library_is_found) {
    const char *directory = temporary_directory();
    const char *make = "make -s BUILD=%s/build LIBDIR=%s CFLAGS=-O0 WERROR= %s/build/example 2>&1";
    (void)printed(format(
        "mkdir %s/backscroll && ln -s \"$(command -v %s)\" %s/backscroll/backscroll", directory, backscroll(),
        directory));
    (void)printed(format(make, directory, directory, directory));
    const char *run = "PATH=/usr/bin:/bin %s/build/example %s/data; kill -9 $(cat %s/data/pid)";
    CHECK(strcmp(printed(format(run, directory, directory, directory)), "ada: Hello! 👋") == 0);
}

/** Rule: the header is valid C++17, and a program in it works. */
TEST(a_program_in_cpp_works) {
    struct daemon daemon = daemon_start("");
    CHECK(strcmp(printed(format(BUILD "/cpp %s", daemon.data_dir)), "Hello from C++") == 0);
}

/** Rule: the library exports what the header promises, and nothing else. */
TEST(only_the_header_is_exported) {
    const char *exported = "nm -D --defined-only " BUILD "/libbackscroll.so.*.*.* | sed 's/.* //' | sort";
    const char *headers = "cat include/backscroll.h include/backscroll/operations.h";
    const char *declared =
        "tr '\\n' ' ' | grep -oE 'BS_API [a-z_0-9 *]+\\(' | grep -oE 'bs_[a-z_0-9]+\\(' | tr -d '(' | sort";
    const char *directory = temporary_directory();
    (void)printed(format("%s >%s/exported; %s | %s >%s/declared", exported, directory, headers, declared, directory));
    CHECK(strcmp(printed(format("diff %s/exported %s/declared", directory, directory)), "") == 0);
    CHECK(atoi(printed(format("wc -l <%s/declared", directory))) > 250);
}
