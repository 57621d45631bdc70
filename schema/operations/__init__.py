"""Every operation there is, by its wire name. One module for each noun.

`python -m backscroll.schema.operations` prints the table that README.md shows.
"""

from typing import Any

from backscroll.schema.operations.attachments import (
    DeleteAttachmentsForMessage,
    GetAllAttachments,
    GetAttachmentsForMessage,
    SaveAttachment,
)
from backscroll.schema.operations.bans import GetBansForRoom, IsUserBanned, RemoveBan, SaveBan
from backscroll.schema.operations.base import Builtin, Command, Operation, Query
from backscroll.schema.operations.lifecycle import ClearAllData, Health, Initialize, Ping
from backscroll.schema.operations.messages import (
    ClearRoomMessages,
    DeleteMessage,
    GetMessageById,
    GetMessages,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.operations.reactions import GetReactionsForMessage, RemoveReaction, SaveReaction
from backscroll.schema.operations.rooms import DeleteRoom, GetAllRooms, GetRoom, SaveRoom, UpdateRoom
from backscroll.schema.operations.users import (
    GetCurrentUser,
    GetUser,
    GetUsersByRoom,
    SaveUser,
    SetCurrentUserId,
    UpdateUser,
)

OPERATIONS: dict[str, type[Operation[Any]]] = {
    operation.wire_name: operation
    for operation in (
        SaveMessage,
        UpdateMessage,
        DeleteMessage,
        ClearRoomMessages,
        GetMessages,
        GetMessageById,
        SaveReaction,
        RemoveReaction,
        GetReactionsForMessage,
        SaveUser,
        UpdateUser,
        SetCurrentUserId,
        GetUser,
        GetCurrentUser,
        GetUsersByRoom,
        SaveRoom,
        UpdateRoom,
        DeleteRoom,
        GetRoom,
        GetAllRooms,
        SaveBan,
        RemoveBan,
        GetBansForRoom,
        IsUserBanned,
        SaveAttachment,
        DeleteAttachmentsForMessage,
        GetAttachmentsForMessage,
        GetAllAttachments,
        Initialize,
        ClearAllData,
        Ping,
        Health,
    )
}

__all__ = [
    "OPERATIONS",
    "Builtin",
    "ClearAllData",
    "ClearRoomMessages",
    "Command",
    "DeleteAttachmentsForMessage",
    "DeleteMessage",
    "DeleteRoom",
    "GetAllAttachments",
    "GetAllRooms",
    "GetAttachmentsForMessage",
    "GetBansForRoom",
    "GetCurrentUser",
    "GetMessageById",
    "GetMessages",
    "GetReactionsForMessage",
    "GetRoom",
    "GetUser",
    "GetUsersByRoom",
    "Health",
    "Initialize",
    "IsUserBanned",
    "Operation",
    "Ping",
    "Query",
    "RemoveBan",
    "RemoveReaction",
    "SaveAttachment",
    "SaveBan",
    "SaveMessage",
    "SaveReaction",
    "SaveRoom",
    "SaveUser",
    "SetCurrentUserId",
    "UpdateMessage",
    "UpdateRoom",
    "UpdateUser",
]
