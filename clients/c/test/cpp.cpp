// The header in C++17, and a small program that uses it.
#include <backscroll.h>

#include <cstdio>
#include <memory>
#include <string_view>

int main(int argc, char **argv) {
    bs_client *client = nullptr;
    bs_client_options options = {};
    options.data_dir = argc > 1 ? argv[1] : "data";
    if (bs_client_new(&options, &client) != BS_OK) return 1;
    bs_save_message_payload save = {};
    save.message.id = bs_text_of("m1");
    save.message.room_id = bs_text_of("home");
    save.message.content = BS_TEXT("Hello from C++");
    save.message.timestamp = 1767225600000;
    bs_code code = bs_save_message(client, &save, nullptr);
    bs_get_messages_payload get = {};
    get.room_id = bs_text_of("home");
    bs_message_array *messages = nullptr;
    if (code == BS_OK) code = bs_get_messages(client, &get, nullptr, &messages);
    if (code != BS_OK) std::fprintf(stderr, "%s\n", bs_last_error(client)->message);
    std::unique_ptr<bs_message_array, void (*)(const void *)> owned(messages, bs_free);
    if (owned) std::printf("%s\n", std::string_view(owned->items[0].content.data).data());
    bs_client_free(client);
    return code == BS_OK ? 0 : 1;
}
