// Save a message and read its room: ./example [DATA_DIR]
#include <backscroll.h>
#include <time.h>

static int run(bs_client *client) {
    bs_save_message_payload message = {
        .message = {
            .id = BS_TEXT("m1"),
            .room_id = BS_TEXT("home"),
            .sender_id = BS_TEXT("ada"),
            .content = BS_TEXT("Hello!"),
            .timestamp = 1000 * (int64_t)time(NULL),
        }};
    bs_save_reaction_payload wave = {
        .reaction = {.message_id = BS_TEXT("m1"), .oder_id = BS_TEXT("bo"), .emoji = BS_TEXT("👋")}};
    bs_get_message_page_payload newest = {.room_id = BS_TEXT("home"), .has_limit = true, .limit = 50};
    bs_message_page *page;
    if (bs_save_message(client, &message, NULL) != BS_OK) return 1;
    if (bs_save_reaction(client, &wave, NULL) != BS_OK) return 1;
    if (bs_get_message_page(client, &newest, NULL, &page) != BS_OK) return 1;
    for (size_t at = 0; at < page->messages.count; at++) {
        const bs_message *each = &page->messages.items[at];
        printf("%s: %s", each->sender_id.data, each->content.data);
        for (size_t of = 0; of < each->reactions.count; of++) printf(" %s", each->reactions.items[of].emoji.data);
        printf("\n");
    }
    bs_free(page);
    return 0;
}

int main(int argc, char **argv) {
    bs_client *client;
    // Starts a daemon if none serves the directory.
    int failed = bs_open(argc > 1 ? argv[1] : "./data", NULL, &client) != BS_OK || run(client) != 0;
    if (failed) fprintf(stderr, "%s\n", bs_last_error(client)->message);
    bs_client_free(client);
    return failed;
}
