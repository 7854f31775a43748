"""`soundpost repo`.

python-tuf is imported when the command runs, not when `soundpost --help` lists it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from soundpost.device.command import Command
from soundpost.device.errors import InputError, UsageError
from soundpost.device.interpreter import RUNTIME_CHOICES
from soundpost.device.interrupt import interrupts_wait

if TYPE_CHECKING:
    from soundpost.export.repository.ceremony import RootChange
    from soundpost.export.repository.keys import KeyRing
    from soundpost.export.repository.publish import Published

_DESCRIPTION = """\
Keeps the signed repository that devices fetch their models from (The Update Framework, TUF).

init    makes keys and an empty repository. REPO/public is what a web server or a shared folder
        gives to devices; each device is given REPO/signed/1.root.json by hand, once.
add     checks a bundle, signs it in as the model of a channel or of single devices; not yet seen
push    publishes what was added, and signs that all is fresh: daily, for the timestamp lasts a day
unpin   lets devices follow their channel again
status  what is in each channel, who is pinned, what expires when
keys    the keys, and where their private halves are
rotate  replaces the keys of a role (root, targets, snapshot, timestamp) by a new root; --renew
        keeps the keys and signs root or targets for another term
sign    adds signatures to a new root that has too few

The ceremony: run init where nobody looks over your shoulder, with --root-keys-to on a memory stick;
copy the stick, put both away in different places. Only rotate, sign and --renew of root need them:
2 of 3 by default. Keep the targets key with whoever may decide what devices run. A server that
pushes every day needs snapshot and timestamp keys only. Each key is locked by the passphrase that
SOUNDPOST_REPO_PASSPHRASE holds, or that is asked for; SOUNDPOST_REPO_KEY_TIMESTAMP (or another
role) can hold the PEM text of a key itself. A key was lost or seen by others: rotate its role, then
push; the root keys too, while enough of them are left.

examples:
  soundpost repo init models --root-keys 3 --threshold 2 --root-keys-to /media/stick
  soundpost repo add models porch.bundle --channel canary
  soundpost repo push models
  soundpost repo add models porch.bundle --channel stable
  soundpost repo add models loud.bundle --device porch-pi --new-device
  soundpost repo status models
  soundpost repo keys models --keys /media/stick
  soundpost repo rotate models timestamp --keys /media/stick
  soundpost repo sign models --keys /media/other-stick
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str, *, keys: bool = True) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=summary, description=summary)
        one.add_argument("repository", metavar="REPO", type=Path, help="folder of the repository")
        one.add_argument("--json", action="store_true", help="print JSON")
        if keys:
            one.add_argument(
                "--keys",
                metavar="DIR",
                type=Path,
                action="append",
                default=[],
                help="another folder with keys; may be repeated (default: REPO/keys)",
            )
        return one

    init = action("init", "make keys and an empty repository", keys=False)
    _add_root_keys(init, 3, 2)
    init.add_argument(
        "--root-keys-to", metavar="DIR", type=Path, help="folder for the root keys alone"
    )
    init.add_argument(
        "--public",
        metavar="DIR",
        default="public",
        help="what devices fetch (default: REPO/public)",
    )
    init.add_argument(
        "--channel", metavar="NAME", action="append", help="(default: stable and canary)"
    )
    init.add_argument("--device", metavar="ID", action="append", default=[], help="known device")
    for role, days in (("root", 365), ("targets", 90), ("snapshot", 7), ("timestamp", 1)):
        init.add_argument(
            f"--{role}-days",
            metavar="DAYS",
            type=int,
            default=days,
            help=f"that a signature of {role} lasts (default: {days})",
        )
    add = action("add", "sign a bundle in; push publishes it")
    add.add_argument("bundle", metavar="BUNDLE", type=Path)
    add.add_argument("--channel", metavar="NAME", action="append", default=[])
    add.add_argument("--device", metavar="ID", action="append", default=[], help="pin a device")
    add.add_argument("--new-device", action="store_true", help="the device is not known yet")
    add.add_argument(
        "--allow-older", action="store_true", help="a version that goes back; devices follow"
    )
    add.add_argument(
        "--runtime", choices=RUNTIME_CHOICES, default="auto", help="what runs the golden vector"
    )
    action("push", "publish what was added, and a fresh timestamp")
    unpin = action("unpin", "let devices follow their channel again")
    unpin.add_argument("device", metavar="ID", nargs="+")
    status = action("status", "channels, pins, expiry", keys=False)
    status.add_argument("--channel", metavar="NAME", help="this one only")
    action("keys", "the keys, and where they are")
    rotate = action("rotate", "replace the keys of a role")
    rotate.add_argument("role", choices=("root", "targets", "snapshot", "timestamp"))
    rotate.add_argument("--renew", action="store_true", help="keep the keys, sign another term")
    rotate.add_argument(
        "--new-keys-to",
        metavar="DIR",
        type=Path,
        help="folder for the new keys (default: REPO/keys)",
    )
    _add_root_keys(rotate, None, None)
    action("sign", "add signatures to a new root")


def _add_root_keys(
    parser: argparse.ArgumentParser, count: int | None, threshold: int | None
) -> None:
    default = "as before" if count is None else str(count)
    parser.add_argument(
        "--root-keys", metavar="N", type=int, default=count, help=f"(default: {default})"
    )
    default = "as before" if threshold is None else str(threshold)
    parser.add_argument(
        "--threshold",
        metavar="N",
        type=int,
        default=threshold,
        help=f"root keys that must sign (default: {default})",
    )


def _ring(arguments: argparse.Namespace) -> KeyRing:
    from soundpost.export.repository.keys import KeyRing, Passphrase

    for folder in arguments.keys:
        if not folder.is_dir():
            raise UsageError(f"--keys {folder}: is no folder; is the stick mounted?")
    return KeyRing([*arguments.keys, arguments.repository / "keys"], Passphrase())


def _init(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.ceremony import RootKeys, init_repository
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.keys import Passphrase
    from soundpost.export.repository.settings import Days, RepositorySettings
    from soundpost.export.repository.signing import utc_now

    days = Days(
        arguments.root_days,
        arguments.targets_days,
        arguments.snapshot_days,
        arguments.timestamp_days,
    )
    settings = RepositorySettings(
        public=arguments.public, days=days, devices=tuple(arguments.device)
    )
    if arguments.channel:
        settings = replace(settings, channels=tuple(arguments.channel))
    root_keys = RootKeys(arguments.root_keys, arguments.threshold)
    published, files = init_repository(
        arguments.repository,
        settings,
        root_keys,
        Passphrase(),
        utc_now(),
        arguments.root_keys_to,
    )
    root = RepositoryFolder(arguments.repository).root_file(1)
    if arguments.json:
        _tell_published(published, True, keys=[str(file) for file in files], root=str(root))
        return 0
    for file in files:
        print(f"key {file}")
    print(
        f"{root_keys.threshold} of the {root_keys.count} root keys must sign a new root: put them "
        "away, in more than one place"
    )
    print(f"give each device, by a way you trust: {root}")
    _tell_published(published, False)
    return 0


def _tell_published(published: Published, as_json: bool, **more: object) -> None:
    if as_json:
        table = asdict(published) | {"expires": f"{published.expires:%Y-%m-%dT%H:%M:%SZ}"} | more
        print(json.dumps(table, indent=1))
        return
    print(
        f"published: root {published.root}, models {published.targets} ({published.files} new "
        f"files), snapshot {published.snapshot}, timestamp {published.timestamp}; push again "
        f"before {published.expires:%Y-%m-%d %H:%M} UTC"
    )
    for note in published.notes:
        print(f"note: {note}")


def _add(arguments: argparse.Namespace) -> int:
    from soundpost.device.bundle import MAX_BUNDLE_BYTES, check_bundle, parse_bundle
    from soundpost.export.repository.contents import add_bundle
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.signing import utc_now

    repository = RepositoryFolder(arguments.repository)
    try:
        with arguments.bundle.open("rb") as file:
            content = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{arguments.bundle}: cannot be read ({error.strerror}); give the path of a "
            ".bundle file"
        ) from error
    bundle = parse_bundle(content, str(arguments.bundle))
    check_bundle(bundle, runtime=arguments.runtime)
    added = add_bundle(
        repository,
        bundle,
        content,
        _ring(arguments),
        utc_now(),
        channels=arguments.channel,
        devices=arguments.device,
        allow_older=arguments.allow_older,
        new_devices=arguments.new_device,
    )
    offer = added.offer
    if arguments.json:
        table = {
            "path": offer.path,
            "sha256": offer.sha256,
            "channels": offer.channels,
            "devices": offer.devices,
            "replaced": added.replaced,
        }
        print(json.dumps(table, indent=1))
        return 0
    print(
        f"signed in: {offer.name} {offer.version} for {', '.join(offer.channels + offer.devices)}; "
        f"`soundpost repo push {arguments.repository}` publishes it"
    )
    for path in added.replaced:
        print(f"note: nobody has {path} any more")
    return 0


def _push(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.publish import push
    from soundpost.export.repository.signing import utc_now

    repository = RepositoryFolder(arguments.repository)
    _tell_published(push(repository, _ring(arguments), utc_now()), arguments.json)
    return 0


def _unpin(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.contents import unpin
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.signing import utc_now

    repository = RepositoryFolder(arguments.repository)
    replaced = unpin(repository, arguments.device, _ring(arguments), utc_now())
    if arguments.json:
        print(json.dumps({"unpinned": arguments.device, "replaced": replaced}, indent=1))
        return 0
    print(f"unpinned: {', '.join(arguments.device)}; `soundpost repo push` publishes it")
    for path in replaced:
        print(f"note: nobody has {path} any more")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.signing import utc_now
    from soundpost.export.repository.status import status_lines, status_table

    table = status_table(RepositoryFolder(arguments.repository), utc_now(), arguments.channel)
    print(json.dumps(table, indent=1) if arguments.json else "\n".join(status_lines(table)))
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.status import key_table

    repository = RepositoryFolder(arguments.repository)
    rows = key_table(repository.root().signed, _ring(arguments))
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        place = row["place"] or "not at hand"
        print(f"{row['role']:<10} {row['keyid'][:16]}  {row['threshold']} must sign  {place}")
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.ceremony import RootKeys, renew, rotate
    from soundpost.export.repository.folder import RepositoryFolder
    from soundpost.export.repository.signing import utc_now

    repository = RepositoryFolder(arguments.repository)
    role: str = arguments.role
    counts = (arguments.root_keys, arguments.threshold)
    if counts != (None, None) and (role != "root" or arguments.renew):
        raise UsageError("--root-keys, --threshold: only for `rotate REPO root` with new keys")
    if arguments.renew:
        if arguments.new_keys_to is not None:
            raise UsageError("--new-keys-to: --renew makes no keys; leave one of them out")
        change = renew(repository, role, _ring(arguments), utc_now())
        return _tell_change(arguments, "root" if role == "root" else "list of models", change)
    root_keys = None
    if counts != (None, None):
        present = repository.root().signed.roles["root"]
        root_keys = RootKeys(counts[0] or len(present.keyids), counts[1] or present.threshold)
    change = rotate(repository, role, _ring(arguments), utc_now(), root_keys, arguments.new_keys_to)
    return _tell_change(arguments, "root", change)


def _sign(arguments: argparse.Namespace) -> int:
    from soundpost.export.repository.ceremony import add_signatures
    from soundpost.export.repository.folder import RepositoryFolder

    change = add_signatures(RepositoryFolder(arguments.repository), _ring(arguments))
    return _tell_change(arguments, "root", change)


def _tell_change(arguments: argparse.Namespace, what: str, change: RootChange) -> int:
    files = [str(file) for file in change.key_files]
    if arguments.json:
        table = {"version": change.version, "keys": files, "missing": change.missing}
        print(json.dumps(table, indent=1))
        return 0
    for file in files:
        print(f"key {file}")
    if change.missing:
        print(
            f"{what} {change.version} is staged and waits for signatures (`soundpost repo sign`):"
        )
        for line in change.missing:
            print(f"  {line}")
    else:
        print(f"{what} {change.version} is staged and signed; `soundpost repo push` publishes it")
    return 0


_ACTIONS = {
    "init": _init,
    "add": _add,
    "push": _push,
    "unpin": _unpin,
    "status": _status,
    "keys": _keys,
    "rotate": _rotate,
    "sign": _sign,
}


def _run(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        import tuf.api.metadata  # noqa: F401
    return _ACTIONS[arguments.action](arguments)


COMMAND = Command(
    summary="keep the signed repository that devices fetch models from",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
