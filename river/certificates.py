"""Certificates for as long as a program or a server lives.

A server of VMs that stay has one for which nobody but the proof of the key vouches.  The machines of a program have one
each, for which an authority of that program vouches; its key never leaves the program.

May not: leave a private key in a file.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

from ._core.tls import Identity, server_context

_LONG = datetime.timedelta(days=3650)  # nobody looks at it; a clock that is wrong must not matter


def make(directory: Path) -> Identity:
    """A fresh key pair and its certificate.  directory: a private one, for a file that is gone when this returns."""
    certificate, private = _certificate("river")
    context = server_context()
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".tls-") as file:  # ssl takes it from a file only
        file.write(_pem(certificate) + _pem_of_key(private))
        file.flush()
        context.load_cert_chain(file.name)
    from cryptography.hazmat.primitives import serialization

    return Identity(context, certificate.public_bytes(serialization.Encoding.DER))


class Authority:
    """Vouches for the machines of one program: who has a certificate of its, is one of them."""

    def __init__(self) -> None:
        self._certificate, self._private = _certificate("river")

    def issue(self, name: str) -> dict[str, bytes]:
        """What somebody of this name needs: the authority's certificate, and its own with its key (PEM)."""
        certificate, private = _certificate(name, self._private)
        return {"authority": _pem(self._certificate), "certificate": _pem(certificate) + _pem_of_key(private)}


def _certificate(name: str, issuer: Any = None) -> tuple[Any, Any]:
    """A certificate and its private key; without an issuer, it vouches for itself and for others."""
    # A program that only joins servers can do without; importing it takes longer than all else.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("river"))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LONG)
        .not_valid_after(now + _LONG)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )
    if issuer is not None:
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
        builder = builder.add_extension(by, critical=False)
    return builder.sign(issuer or private, hashes.SHA256()), private


def _named(name: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _pem_of_key(private: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
