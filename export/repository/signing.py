"""Signatures of a repository's metadata: made with the keys at hand, counted against thresholds."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from soundpost.device.errors import UsageError
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import KeyRing


def utc_now() -> datetime:
    """Now, in the whole seconds that metadata hold."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def signers_of(ring: KeyRing, role: str, *roots: Metadata[Root] | None) -> list[CryptoSigner]:
    """The keys of a role that are within reach, of any of these roots, each once."""
    keyids = dict.fromkeys(
        keyid for root in roots if root is not None for keyid in root.signed.roles[role].keyids
    )
    found = (ring.signer(role, keyid) for keyid in keyids)
    return [signer for signer in found if signer is not None]


def required_signers(
    ring: KeyRing, role: str, root: Metadata[Root], *others: Metadata[Root] | None
) -> list[CryptoSigner]:
    """Keys that can sign for a role, with those that other roots know where they are at hand.

    Raises UsageError where they do not reach the threshold of `root`.
    """
    wanted = root.signed.roles[role]
    signers = signers_of(ring, role, root, *others)
    reached = sum(signer.public_key.keyid in wanted.keyids for signer in signers)
    if reached < wanted.threshold:
        ids = ", ".join(keyid[:16] for keyid in wanted.keyids)
        raise UsageError(
            f"no {role} key at hand: {reached} of {wanted.threshold} that must sign (of {ids}); "
            "give the folder of the keys with --keys; nothing was changed"
        )
    return signers


def sign(metadata: Metadata[Root] | Metadata[Targets], signers: list[CryptoSigner]) -> None:
    """Put these keys' signatures in place of all that were there."""
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)


def missing_signatures(root: Metadata[Root], before: Metadata[Root] | None) -> list[str]:
    """One line for each threshold that a new root does not reach: its own, and the last one's."""
    lines = []
    for judge in [root] if before is None else [before, root]:
        result = judge.signed.get_verification_result(Root.type, root.signed_bytes, root.signatures)
        if not result.verified:
            ids = ", ".join(keyid[:16] for keyid in result.unsigned)
            lines.append(
                f"root {root.signed.version} lacks {result.missing} of the root keys of version "
                f"{judge.signed.version}: {ids}"
            )
    return lines


def next_targets(
    repository: RepositoryFolder, ring: KeyRing, now: datetime, root: Metadata[Root] | None = None
) -> tuple[Metadata[Targets], list[CryptoSigner]]:
    """The list of models, to be changed and staged under the next number, and who signs it.

    root : that is about to be staged; by default the one that is

    It is signed for the root that devices have as well, so that it is valid before and after the
    next root is published. Raises UsageError where no key is at hand.
    """
    root = root or repository.root()
    before = (repository.published_root(), repository.public_root())
    signers = required_signers(ring, Targets.type, root, *before)
    targets = repository.targets_now()
    published = repository.published_targets()
    if published is not None:
        targets.signed.version = published.signed.version + 1
    targets.signed.expires = now + timedelta(days=repository.settings.days.targets)
    return targets, signers
