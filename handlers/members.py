"""Members one at a time, in the table that contains the lists of rooms."""

from backscroll.handlers import changes, rooms
from backscroll.handlers.lists import Items
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.rooms import MEMBERS
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Target
from backscroll.schema.errors import NotFound
from backscroll.schema.operations import GetMember, GetMembers, RemoveMember, SaveMember
from backscroll.schema.records import RoomMember


@handles(SaveMember)
def save_member(command: SaveMember, db: Writes, context: CommandContext) -> None:
    room_id, member = command.room_id, command.member
    if not rooms.exists(room_id, db):
        raise NotFound.at("$.payload.roomId", f"there is no room {room_id!r}; save the room before its members")
    changes.add_reference(changes.in_room("member", room_id, member.oder_id), db, context)
    MEMBERS.save(room_id, member, db)
    changes.saved(context, "member", member.oder_id, room_id)


@handles(RemoveMember)
def remove_member(command: RemoveMember, db: Writes, context: CommandContext) -> None:
    """The log may contain text about a member that is stored no more: one that a shorter list left out."""
    room_id, oder_id = command.room_id, command.oder_id
    changes.erase(changes.in_room("member", room_id, oder_id), db, context, Target(MEMBERS.noun, (oder_id,)))
    if MEMBERS.remove(room_id, oder_id, db):
        changes.gone(context, "member", oder_id, room_id)


@handles(GetMember)
def get_member(query: GetMember, db: Reads) -> RoomMember | None:
    return MEMBERS.find(query.room_id, query.oder_id, db)


@handles(GetMembers, cached=Cached.UNTIL_COMMIT)
def get_members(query: GetMembers, db: Reads) -> Items[RoomMember]:
    return MEMBERS.page(query.room_id, query.after, query.limit, db)
