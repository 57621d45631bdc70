# Tests, for which jansson is needed besides: the vectors are JSON, and so is what fake daemons say.
#
#     make check              all tests, with the address and undefined behaviour sanitizers
#     make check-valgrind     those that need no long time there
#     make build/vectors      the runner of the conformance vectors
#     make build/driver       what the benchmark drives

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
QUICK := a_field an_error an_id a_result what_a_later json_ decoding_is without_memory an_event changes_come a_watched a_stream
check-valgrind: $(BUILD)/tests
	valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite,possible --error-exitcode=9 \
	    --trace-children=no $(BUILD)/tests $(QUICK)

-include $(patsubst %.c,$(BUILD)/%.d,$(TESTS) $(VECTORS) test/support.c test/driver.c)
.PHONY: check check-here check-valgrind
