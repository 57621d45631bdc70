# Tests, for which jansson is needed besides: the vectors are JSON, and so is what fake daemons say.
#
#     make check              all tests, with the address and undefined behaviour sanitizers
#     make check-valgrind     those that need no long time there
#     make build/vectors      the runner of the conformance vectors
#     make build/driver       what the benchmark drives
#     make format             format what is written by hand; format-check also looks at what is generated
#     make lint               all warnings and the analyser of GCC
#     make docs               the pages of the API, without warnings
#     make dist               a release, which is then built, installed and used in an empty directory

JANSSON = $(shell $(PKG_CONFIG) --cflags jansson)
TEST_CFLAGS = -std=c11 -D_GNU_SOURCE -pthread -MMD -MP $(WARNINGS) -Iinclude -DBUILD='"$(BUILD)"' \
    $(shell $(PKG_CONFIG) --cflags $(REQUIRES)) $(JANSSON)
TEST_LIBS = $(LIBS) $(shell $(PKG_CONFIG) --libs jansson) -pthread
# The tests take memory away from the library.
WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
TESTS := $(wildcard test/test*.c)
VECTORS := $(wildcard test/vectors/*.c)
SANITIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

$(BUILD)/test/%.o: test/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(TEST_CFLAGS) $(CPPFLAGS) -c $< -o $@

$(BUILD)/vectors: $(VECTORS:%.c=$(BUILD)/%.o) $(BUILD)/test/support.o $(STATIC)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS)

$(BUILD)/tests: $(TESTS:%.c=$(BUILD)/%.o) $(BUILD)/test/support.o $(STATIC)
	$(CC) $(CFLAGS) $(LDFLAGS) $(WRAP) -o $@ $^ $(TEST_LIBS)

$(BUILD)/driver: $(BUILD)/test/driver.o $(STATIC)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS)

$(BUILD)/example: example.c $(STATIC)
	$(CC) $(CFLAGS) -std=c11 $(WARNINGS) -Iinclude $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/cpp: test/cpp.cpp $(STATIC)
	$(CXX) $(CFLAGS) -std=c++17 -Wall -Wextra -Wpedantic -Iinclude $(LDFLAGS) -o $@ $^ $(LIBS)

PROGRAMS = $(BUILD)/tests $(BUILD)/example $(BUILD)/cpp $(BUILD)/driver $(SHARED)

check:
	$(MAKE) BUILD=$(BUILD)/sanitized CFLAGS='$(SANITIZE) $(WERROR)' check-here

check-here: $(PROGRAMS)
	$(BUILD)/tests $(ONLY)

# A test of many seconds takes minutes there; what forks and serves is not of interest.
QUICK := a_field an_error a_result what_a_later json_ decoding_is without_memory an_event changes_come a_watched a_stream
check-valgrind: $(BUILD)/tests
	valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite,possible --error-exitcode=9 \
	    --trace-children=no $(BUILD)/tests $(QUICK)

-include $(patsubst %.c,$(BUILD)/%.d,$(TESTS) $(VECTORS) test/support.c test/driver.c)

CLANG_FORMAT ?= clang-format-14
BY_HAND := $(wildcard include/*.h src/*.[ch] test/*.[ch] test/*.cpp test/vectors/*.[ch] example.c)
GENERATED := $(wildcard include/backscroll/*.h src/generated/*.[ch])

format:
	$(CLANG_FORMAT) -i $(BY_HAND)

format-check:
	$(CLANG_FORMAT) --dry-run -Werror $(BY_HAND) $(GENERATED)

# The analyser sees leaks where a function takes memory over; the sanitizers and valgrind look for real ones.
lint:
	$(MAKE) BUILD=$(BUILD)/lint CFLAGS='-O1 -Werror -fanalyzer -Wno-analyzer-malloc-leak' all
	$(MAKE) BUILD=$(BUILD)/lint CFLAGS='-O1 -Werror' $(patsubst %,$(BUILD)/lint/%,tests vectors driver example cpp examples.o)

# The examples in the comments of the operations, each as a function.
$(BUILD)/examples.c: include/backscroll/operations.h
	@mkdir -p $(@D)
	awk 'BEGIN { print "#include <backscroll.h>" } \
	    /@code/ { printf "void example_%d(bs_client *client);\nvoid example_%d(bs_client *client) {\n", ++n, n; on = 1; next } \
	    /@endcode/ { print "(void)code;\n}"; on = 0 } on { sub(/^ \* ?/, ""); print }' $< >$@

$(BUILD)/examples.o: $(BUILD)/examples.c
	$(CC) $(CFLAGS) -std=c11 -Wall -Wextra -Wpedantic -Iinclude -c $< -o $@

docs:
	mkdir -p build
	doxygen Doxyfile

RELEASE := backscroll-c-$(VERSION)
PACKED := Makefile backscroll.pc.in README.md CHANGELOG.md LICENSE example.c include src

# Installed somewhere else than where it was built for, as packages of distributions do.
dist:
	mkdir -p $(BUILD)
	tar -czf $(BUILD)/$(RELEASE).tar.gz --owner=0 --group=0 --sort=name --transform 's|^|$(RELEASE)/|' $(PACKED)
	rm -rf $(BUILD)/dist
	mkdir -p $(BUILD)/dist
	tar -xzf $(BUILD)/$(RELEASE).tar.gz -C $(BUILD)/dist
	$(MAKE) -C $(BUILD)/dist/$(RELEASE) BUILD=build install PREFIX=/opt/backscroll DESTDIR=$(abspath $(BUILD))/dist/root
	cd $(BUILD)/dist && export PKG_CONFIG_PATH=root/opt/backscroll/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=root && \
	    $(CC) -std=c11 $(RELEASE)/example.c $$($(PKG_CONFIG) --cflags --libs backscroll) -o shared && \
	    $(CC) -std=c11 $(RELEASE)/example.c root/opt/backscroll/lib/libbackscroll.a \
	        $$($(PKG_CONFIG) --cflags backscroll) $(LIBS) -o static && \
	    export LD_LIBRARY_PATH=root/opt/backscroll/lib && \
	    for each in shared static; do ./$$each data-$$each && kill "$$(cat data-$$each/pid)"; done

.PHONY: check check-here check-valgrind format format-check lint docs dist
