# What tests need besides: jansson, for the vectors' files and the fake daemons.

TEST_CFLAGS := -std=c11 -D_GNU_SOURCE -pthread -MMD -MP $(WARNINGS) -Iinclude \
    $(shell $(PKG_CONFIG) --cflags $(REQUIRES) jansson 2>/dev/null)
TEST_LIBS := $(LIBS) $(shell $(PKG_CONFIG) --libs jansson 2>/dev/null) -pthread
VECTORS := $(wildcard test/vectors/*.c)

$(BUILD)/test/%.o: test/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(TEST_CFLAGS) $(CPPFLAGS) -c $< -o $@

$(BUILD)/vectors: $(VECTORS:%.c=$(BUILD)/%.o) $(BUILD)/test/support.o $(STATIC)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS)

-include $(patsubst %.c,$(BUILD)/%.d,$(wildcard test/*.c test/vectors/*.c))
