"""The work: one plain function for each operation. This mapping is the table of contents of the product.

A command's function gets the command and the write transaction; a query's a snapshot; a built-in's what the
daemon knows of itself. What it returns is the result; what it raises is rolled back and becomes the error reply.
"""

from collections.abc import Callable, Mapping
from typing import Any

from backscroll.handlers.attachments import (
    delete_attachments_for_message,
    get_all_attachments,
    get_attachments_for_message,
    save_attachment,
)
from backscroll.handlers.bans import get_bans_for_room, is_user_banned, remove_ban, save_ban
from backscroll.handlers.batch import batch
from backscroll.handlers.channels import (
    create_category,
    create_channel,
    create_message,
    delete_category,
    delete_channel,
    get_channel,
    list_categories,
    list_channels,
    update_category,
    update_channel,
)
from backscroll.handlers.lifecycle import clear_all_data, health, initialize, ping
from backscroll.handlers.media import (
    delete_media,
    get_media,
    get_media_part,
    put_media,
    put_media_part,
)
from backscroll.handlers.messages import (
    clear_room_messages,
    delete_message,
    get_message_by_id,
    get_messages,
    save_message,
    update_message,
)
from backscroll.handlers.pages import get_message_page, list_messages
from backscroll.handlers.reactions import get_reactions_for_message, remove_reaction, save_reaction
from backscroll.handlers.replay import append_log, get_log
from backscroll.handlers.rooms import delete_room, get_all_rooms, get_room, save_room, update_room
from backscroll.handlers.rows import get_rows
from backscroll.handlers.scopes import (
    adopt_legacy_database,
    compact_scope,
    delete_scope,
    get_scope_info,
    list_scopes,
)
from backscroll.handlers.sessions import create_session, delete_expired_sessions, delete_session, get_session
from backscroll.handlers.users import (
    create_user,
    get_current_user,
    get_user,
    get_user_by_pubkey,
    get_users_by_room,
    list_users,
    save_user,
    set_current_user_id,
    update_user,
)
from backscroll.schema import operations as op

Handler = Callable[[Any, Any], Any]
Handlers = Mapping[type[op.Operation[Any]], Handler]

HANDLERS: Handlers = {
    op.SaveMessage: save_message,
    op.UpdateMessage: update_message,
    op.DeleteMessage: delete_message,
    op.ClearRoomMessages: clear_room_messages,
    op.GetMessages: get_messages,
    op.GetMessageById: get_message_by_id,
    op.CreateMessage: create_message,
    op.GetMessagePage: get_message_page,
    op.ListMessages: list_messages,
    op.SaveReaction: save_reaction,
    op.RemoveReaction: remove_reaction,
    op.GetReactionsForMessage: get_reactions_for_message,
    op.SaveUser: save_user,
    op.UpdateUser: update_user,
    op.SetCurrentUserId: set_current_user_id,
    op.GetUser: get_user,
    op.GetCurrentUser: get_current_user,
    op.GetUsersByRoom: get_users_by_room,
    op.CreateUser: create_user,
    op.GetUserByPubkey: get_user_by_pubkey,
    op.ListUsers: list_users,
    op.SaveRoom: save_room,
    op.UpdateRoom: update_room,
    op.DeleteRoom: delete_room,
    op.GetRoom: get_room,
    op.GetAllRooms: get_all_rooms,
    op.CreateChannel: create_channel,
    op.UpdateChannel: update_channel,
    op.DeleteChannel: delete_channel,
    op.GetChannel: get_channel,
    op.ListChannels: list_channels,
    op.CreateCategory: create_category,
    op.UpdateCategory: update_category,
    op.DeleteCategory: delete_category,
    op.ListCategories: list_categories,
    op.SaveBan: save_ban,
    op.RemoveBan: remove_ban,
    op.GetBansForRoom: get_bans_for_room,
    op.IsUserBanned: is_user_banned,
    op.SaveAttachment: save_attachment,
    op.DeleteAttachmentsForMessage: delete_attachments_for_message,
    op.GetAttachmentsForMessage: get_attachments_for_message,
    op.GetAllAttachments: get_all_attachments,
    op.CreateSession: create_session,
    op.DeleteSession: delete_session,
    op.DeleteExpiredSessions: delete_expired_sessions,
    op.GetSession: get_session,
    op.PutMediaPart: put_media_part,
    op.PutMedia: put_media,
    op.DeleteMedia: delete_media,
    op.GetMedia: get_media,
    op.GetMediaPart: get_media_part,
    op.GetScopeInfo: get_scope_info,
    op.ListScopes: list_scopes,
    op.DeleteScope: delete_scope,
    op.AdoptLegacyDatabase: adopt_legacy_database,
    op.CompactScope: compact_scope,
    op.Batch: batch,
    op.GetLog: get_log,
    op.AppendLog: append_log,
    op.GetRows: get_rows,
    op.Initialize: initialize,
    op.ClearAllData: clear_all_data,
    op.Ping: ping,
    op.Health: health,
}
