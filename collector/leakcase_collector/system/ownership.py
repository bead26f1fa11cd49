"""Files that we create: private, new, and the invoking user's even under sudo."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from leakcase_collector.errors import OutputError
from leakcase_collector.system.os_errors import printable


class Invoker(NamedTuple):
    """The user on whose behalf we run."""

    user_id: int
    group_id: int


def invoking_user() -> Invoker:
    """The user who called sudo when we are root through it (SUDO_UID, SUDO_GID), else ourselves."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit():
        return Invoker(int(user), int(group))
    return Invoker(os.geteuid(), os.getegid())


def create_private_file(path: str) -> int:
    """A writable descriptor of a new file, mode 0600, owned by `invoking_user`; or OutputError.

    An existing file or link is never opened (O_EXCL, O_NOFOLLOW). As root the file changes hands
    only where the user could have created it themselves, so that a sudo rule for this program is
    no way to own a file in a directory of root's.
    """
    directory, name = os.path.split(path)
    try:
        directory_fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=directory_fd)
            _hand_over(fd, os.fstat(directory_fd))
        finally:
            os.close(directory_fd)
    except OSError as error:
        raise _cannot_create(path, error) from error
    return fd


def create_unnamed_file(directory: str) -> int | None:
    """As `create_private_file`, but without a name until `name_file`: it vanishes if we end.

    None where the file system has no such files (O_TMPFILE of open(2)).
    """
    try:
        directory_fd = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_create(directory, error) from error
    try:
        fd = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
        _hand_over(fd, os.fstat(directory_fd))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise _cannot_create(directory, error) from error
    finally:
        os.close(directory_fd)
    return fd


def name_file(fd: int, path: str) -> None:
    """Give a file of `create_unnamed_file` its name; OutputError where something has it."""
    # By way of a directory, so that Python calls linkat(2): only that follows the link.
    descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(fd), path, src_dir_fd=descriptors, follow_symlinks=True)
    except OSError as error:
        raise _cannot_create(path, error) from error
    finally:
        os.close(descriptors)


def _hand_over(fd: int, directory: os.stat_result) -> None:
    user = invoking_user()
    if user.user_id == os.geteuid() or not _could_create(directory, user):
        return
    try:
        os.fchown(fd, user.user_id, user.group_id)
    except OSError:
        return  # a network file system that maps root away: the file stays as it was created


def _could_create(directory: os.stat_result, user: Invoker) -> bool:
    if directory.st_uid == user.user_id:
        wanted = stat.S_IWUSR
    elif directory.st_gid == user.group_id:
        wanted = stat.S_IWGRP
    else:
        wanted = stat.S_IWOTH
    return bool(directory.st_mode & wanted)


def _cannot_create(path: str, error: OSError) -> OutputError:
    advice = {
        errno.EEXIST: "it exists already. Choose another name with -o, or remove it.",
        errno.ELOOP: "it is a symbolic link. Choose another name with -o.",
        errno.ENOENT: "its directory does not exist. Create it, or choose another with -o.",
        errno.ENOTDIR: "its directory is not a directory. Choose another with -o.",
        errno.EISDIR: "it is a directory. Give a file name with -o.",
        errno.EACCES: "you may not write in its directory. Choose another with -o.",
        errno.EROFS: "its file system is read-only. Choose another directory with -o.",
        errno.ENOSPC: "its file system is full. Free some space, or choose another with -o.",
        errno.EDQUOT: "your quota there is used up. Choose another directory with -o.",
    }
    reason = advice.get(error.errno or 0, f"{error.strerror}. Choose another name with -o.")
    return OutputError(f"cannot create {printable(path)}: {reason}")
