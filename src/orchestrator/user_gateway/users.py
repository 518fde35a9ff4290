"""Users: oneself, and for admins everybody."""

from typing import Any

from pydantic import Field
from quart import Blueprint, Response, request

from orchestrator.api.auth import UserGate, read_id
from orchestrator.api.http import Body, no_content, read_body, reply
from orchestrator.app.sessions import Sessions
from orchestrator.app.users import Change, NewUser, Users
from orchestrator.domain.errors import Invalid
from orchestrator.domain.ids import UserId
from orchestrator.domain.paging import Wanted
from orchestrator.domain.users import Role, User, read_roles

NO_USER = "User not found"


class CreateUser(Body):
    handle: str = Field(min_length=1)
    password: str = Field(min_length=1)
    email: str | None = None
    roles: list[str] | None = None


class ResetPassword(Body):
    password: str


class ChangeRoles(Body):
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def user_view(user: User) -> dict[str, Any]:
    email = {} if user.email is None else {"email": user.email}
    roles = sorted(role.value for role in user.roles)
    return {"id": str(user.id), "handle": user.handle, **email, "is_active": user.is_active, "roles": roles}


def user_routes(users: Users, sessions: Sessions, gate: UserGate) -> Blueprint:
    routes = Blueprint("users", __name__, url_prefix="/v1/users")

    async def change() -> Change:
        return Change(await gate.require_admin(), gate.caller())

    @routes.get("/me")
    async def me() -> Response:
        who = await gate.authenticated()
        return reply(user_view(await users.get(who.user_id)))

    @routes.post("")
    async def create() -> Response:
        by = await change()
        wanted = await read_body(CreateUser, missing="Handle and password are required")
        roles = frozenset({Role.MEMBER}) if wanted.roles is None else read_roles(wanted.roles)
        user = await users.create(NewUser(wanted.handle, wanted.password, wanted.email, roles), by)
        return reply(user_view(user), 201)

    @routes.get("")
    async def list_all() -> Response:
        await gate.require_admin()
        page = await users.page(Wanted.of(request.args.get("limit"), request.args.get("cursor")))
        further = {} if page.next_cursor is None else {"next_cursor": page.next_cursor}
        return reply({"users": [user_view(user) for user in page.items], **further})

    @routes.post("/<user>/revoke_sessions")
    async def revoke_sessions(user: str) -> Response:
        who = await gate.require_admin()
        await sessions.revoke_all(who, _id(user), gate.caller())
        return no_content()

    @routes.post("/<user>/disable")
    async def disable(user: str) -> Response:
        by = await change()
        await users.disable(_id(user), by)
        return no_content()

    @routes.post("/<user>/enable")
    async def enable(user: str) -> Response:
        by = await change()
        await users.enable(_id(user), by)
        return no_content()

    @routes.post("/<user>/reset_password")
    async def reset_password(user: str) -> Response:
        by = await change()
        wanted = await read_body(ResetPassword)
        await users.reset_password(_id(user), wanted.password, by)
        return no_content()

    @routes.post("/<user>/roles")
    async def change_roles(user: str) -> Response:
        by = await change()
        wanted = await read_body(ChangeRoles)
        if not wanted.add and not wanted.remove:
            raise Invalid("add or remove: name at least one role", field="add")
        add, remove = read_roles(wanted.add, "add"), read_roles(wanted.remove, "remove")
        await users.change_roles(_id(user), add, remove, by)
        return no_content()

    return routes


def _id(text: str) -> UserId:
    return UserId(read_id(text, NO_USER))
