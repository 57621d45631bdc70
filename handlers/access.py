"""Operations on who may connect and call. The daemon keeps that beside the scopes and not in one of them."""

from backscroll.handlers.registry import handles
from backscroll.handlers.storage import Status
from backscroll.schema.operations import (
    AddKey,
    CreateToken,
    Hello,
    ListKeys,
    ListTokens,
    RevokeKey,
    RevokeToken,
)
from backscroll.schema.replies import AccessToken, KeyList, Proof


@handles(Hello)
def hello(query: Hello, status: Status) -> Proof:
    return status.access.prove(query.nonce, query.name)


@handles(CreateToken)
def create_token(command: CreateToken, status: Status) -> None:
    status.access.create_token(command)


@handles(ListTokens)
def list_tokens(_command: ListTokens, status: Status) -> list[AccessToken]:
    return status.access.tokens()


@handles(RevokeToken)
def revoke_token(command: RevokeToken, status: Status) -> None:
    status.access.revoke_token(command.name)


@handles(AddKey)
def add_key(command: AddKey, status: Status) -> None:
    status.access.add_key(command)


@handles(ListKeys)
def list_keys(_command: ListKeys, status: Status) -> KeyList:
    return status.access.keys()


@handles(RevokeKey)
def revoke_key(command: RevokeKey, status: Status) -> None:
    status.access.revoke_key(command.name)
