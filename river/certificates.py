"""A certificate for as long as a server lives; nobody but the proof of the key vouches for it.

May not: leave the private key in a file.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

from ._core.tls import Identity, server_context

_LONG = datetime.timedelta(days=3650)  # nobody looks at it; a clock that is wrong must not matter


def make(directory: Path) -> Identity:
    """A fresh key pair and its certificate.  directory: a private one, for a file that is gone when this returns."""
    # A program that only joins servers can do without; importing it takes longer than all else.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "river")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LONG)
        .not_valid_after(now + _LONG)
        .sign(private, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM) + private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = server_context()
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".tls-") as file:  # ssl takes it from a file only
        file.write(text)
        file.flush()
        context.load_cert_chain(file.name)
    return Identity(context, certificate.public_bytes(serialization.Encoding.DER))
