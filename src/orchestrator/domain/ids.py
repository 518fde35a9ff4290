"""Ids as types, so that a job's id is never passed where a task's is meant."""

from typing import NewType
from uuid import UUID

UserId = NewType("UserId", UUID)
ProjectId = NewType("ProjectId", UUID)
SessionId = NewType("SessionId", UUID)
TaskId = NewType("TaskId", UUID)
JobId = NewType("JobId", UUID)
AssignmentId = NewType("AssignmentId", UUID)
NodeId = NewType("NodeId", UUID)
LinkId = NewType("LinkId", UUID)

SYSTEM_USER = UserId(UUID("00000000-0000-7000-8000-000000000001"))
"""Seeded by the first migration; it has no password and never logs in."""
