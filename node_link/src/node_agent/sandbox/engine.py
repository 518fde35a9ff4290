"""What podman and docker are told, as lists of arguments. Pure: the one place that knows their flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from node_agent.sandbox.folder import Folder
from node_agent.sandbox.spec import JobToRun, Limits, environment_of

STATE_LABEL = "io.cynode.state"
TASK_LABEL = "io.cynode.task"
JOB_LABEL = "io.cynode.job"
ASSIGNMENT_LABEL = "io.cynode.assignment"
_TMP_BYTES = 256 << 20


def name_of(assignment: UUID) -> str:
    return f"cynode-{assignment}"


@dataclass(frozen=True)
class Engine:
    name: Literal["podman", "docker"]
    program: str
    env: Mapping[str, str]
    """All that the engine's client sees of the environment."""
    own_user: tuple[int, int]
    """Who the agent is: who jobs are in an engine without root."""
    rootless: bool = False
    args: tuple[str, ...] = ()
    """Put before every command."""
    run_args: tuple[str, ...] = ()
    """Put into `run`."""

    def run(
        self,
        job: JobToRun,
        image: str,
        limits: Limits,
        folder: Folder,
        mark: str,
        uid: int | None,
    ) -> list[str]:
        out = self._command("run", "--rm", "--pull=never", "--network=none", "--read-only", "--cap-drop=ALL")
        out += ["--security-opt=no-new-privileges", "--log-driver=none", "--hostname=cynode"]
        out += [f"--name={name_of(job.assignment_id)}", f"--cidfile={folder.job / 'cid'}", *self._user(uid)]
        if self.name == "podman":
            out += ["--http-proxy=false"]  # else it hands the host's proxy, perhaps with a password, to the job
        out += self._labels(job, mark) + _limit_flags(limits)
        out += [f"--mount=type=tmpfs,destination=/tmp,tmpfs-size={_TMP_BYTES},tmpfs-mode=1777"]
        out += [f"--volume={folder.path}:/workspace:rw,Z", f"--volume={folder.job}:/job:ro,Z"]
        out += ["--workdir=/workspace", "--entrypoint=/bin/sh"]
        for variable, value in environment_of(job, "/workspace").items():
            out += ["--env", f"{variable}={value}"]
        return [*out, *self.run_args, image, "/job/init", *folder.program.argv("/job")]

    def image_exists(self, image: str) -> list[str]:
        return self._command("image", "exists" if self.name == "podman" else "inspect", image)

    def pull(self, image: str) -> list[str]:
        return self._command("pull", "--quiet", image)

    def import_image(self, archive: Path, image: str) -> list[str]:
        return self._command("import", str(archive), image)

    def kill(self, container: str, number: str) -> list[str]:
        return self._command("kill", f"--signal={number}", container)

    def remove(self, container: str) -> list[str]:
        at_once = ["--time=0", "--ignore"] if self.name == "podman" else []
        return self._command("rm", "--force", *at_once, "--volumes", container)

    def list_marked(self, mark: str) -> list[str]:
        return self._command("ps", "--all", f"--filter=label={STATE_LABEL}={mark}", "--format={{.Names}}")

    def version(self) -> list[str]:
        return self._command("version", "--format={{.Client.Version}}")

    def _command(self, *rest: str) -> list[str]:
        return [self.program, *self.args, *rest]

    def _user(self, uid: int | None) -> list[str]:
        if uid is not None:
            return [f"--user={uid}:{uid}"]
        if self.rootless:  # root inside is the agent's own user outside, and holds no capability; it needs no subuids
            return ["--user=0:0"]
        return ["--user={}:{}".format(*self.own_user)]

    def _labels(self, job: JobToRun, mark: str) -> list[str]:
        labels = {
            STATE_LABEL: mark,
            TASK_LABEL: str(job.task_id),
            JOB_LABEL: str(job.job_id),
            ASSIGNMENT_LABEL: str(job.assignment_id),
        }
        return [f"--label={name}={value}" for name, value in labels.items()]


def _limit_flags(limits: Limits) -> list[str]:
    out = []
    if limits.memory_mb is not None:
        out += [f"--memory={limits.memory_mb}m", f"--memory-swap={limits.memory_mb}m"]
    if limits.pids is not None:
        out.append(f"--pids-limit={limits.pids}")
    if limits.cpus is not None:
        out.append(f"--cpus={limits.cpus:g}")
    return out
