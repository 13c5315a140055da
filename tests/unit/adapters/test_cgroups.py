"""Where a control group may be made."""

import os

import pytest

from codetape_adapters.sandboxes.bubblewrap.cgroups import delegated

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="root alone can become another user")
OWN = "user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"


def tree(root, handed):
    """Lay out groups of version 2: each with what it hands down, and whether the user may move processes there."""
    for group, (controllers, owner) in handed.items():
        folder = root / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(controllers)
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.procs").chmod(0o644)
        os.chown(folder / "cgroup.procs", owner, owner)
    (root / "own").write_text(f"0::/{OWN}\n")
    for folder in (root, *root.rglob("*")):
        folder.chmod(0o755)
    return root


def as_user(act):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(4321)
        os.write(writer, str(act()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


USER = "user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("handed", "chosen"),
    [
        ({".": ("memory pids cpu", 0), USER: ("memory pids", 4321), f"{USER}/app.slice": ("memory pids", 4321), OWN: ("", 4321)}, f"{USER}/app.slice"),
        ({".": ("memory pids cpu", 0), USER: ("memory pids cpu", 4321), f"{USER}/app.slice": ("cpu", 4321), OWN: ("", 4321)}, USER),
        ({".": ("memory pids cpu", 0), USER: ("memory pids", 0), f"{USER}/app.slice": ("memory pids", 0), OWN: ("", 0)}, "."),
        ({".": ("memory pids cpu", 4321), OWN: ("", 4321)}, "."),
    ],
    ids=["the nearest that was handed down", "one above that has memory", "none of the user's own", "the root itself"],
)  # fmt: skip
def test_a_group_is_made_below_the_nearest_that_was_handed_to_the_user(tmp_path, handed, chosen):
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == 0 and above != above.parent:
            above.chmod(above.stat().st_mode | 0o011)
    root = tree(tmp_path, handed)
    assert as_user(lambda: delegated(root, root / "own")) == str(root / chosen)
