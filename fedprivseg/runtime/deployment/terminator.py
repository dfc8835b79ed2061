"""The TLS terminator before the SuperLink: nginx, with a client certificate a hospital.

Flower serves all its calls on one port, and asks those of the operator for no authentication. So the SuperLink listens on
loopback, and this is what hospitals reach: without a certificate of the consortium nobody gets further than the handshake; with
one, the calls of a SuperNode are let through, and only under the hospital's own node key.
"""

from __future__ import annotations

import os
import shutil
from base64 import b64encode
from pathlib import Path

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_text
from fedprivseg.runtime.deployment.certificates import certified_key
from fedprivseg.runtime.deployment.kit import PIECE, ServerKit

CALLS = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)
"""The calls of a SuperNode that the operator has registered. It registers and removes none itself."""

_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Debian puts nginx where an ordinary account's PATH does not lead."""

_CONFIGURATION = """\
# Written by fedprivseg deploy: what is changed here is lost when a hospital is certified.
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {logs}/nginx.log notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server_tokens off;
    client_max_body_size {most};
    client_body_temp_path {folder}/nginx;
    proxy_temp_path {folder}/nginx;
    fastcgi_temp_path {folder}/nginx;
    uwsgi_temp_path {folder}/nginx;
    scgi_temp_path {folder}/nginx;
    proxy_buffering off;
    proxy_request_buffering off;
    map_hash_bucket_size 1024;

    # Each hospital's certificate speaks for the node key in it, and for no other.
    map "$ssl_client_s_dn $http_flwr_public_key" $own {{
        default 0;
{hospitals}
    }}

    upstream superlink {{
        server 127.0.0.1:{link_port};
        keepalive 32;
    }}

    server {{
        listen {address}:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_client_certificate {authority};
        ssl_verify_client on;
        ssl_verify_depth 1;

        location ~ ^/v1/fleet/({calls})\\z {{
            if ($own = 0) {{ return 401; }}
            proxy_pass https://superlink;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header flwr-public-key $http_flwr_public_key;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {authority};
            proxy_ssl_name localhost;
            proxy_read_timeout 120s;
        }}

        location / {{ return 404; }}
    }}
}}
"""


def program() -> str:
    """Where nginx is.

    Raises:
        RequestError: nowhere.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    found = shutil.which("nginx", path=path)
    if found is None:
        raise RequestError("nginx is not installed; on Debian: apt-get install nginx-light")
    return found


def write_configuration(kit: ServerKit, address: str = "0.0.0.0") -> None:
    """Write the terminator's configuration for the hospitals that have a certificate.

    Args:
        kit: the operator's.
        address: on which it listens; all of the machine's by default.
    """
    deployment = kit.deployment
    for folder in (kit.logs, kit.path / "nginx"):
        folder.mkdir(exist_ok=True)
    hospitals = "\n".join(
        f'        "CN={site} {b64encode(certified_key(path)).decode()}" 1;' for site, path in kit.certified.items()
    )
    where = {name: path.resolve() for name, path in {"folder": kit.path, "logs": kit.logs}.items()}
    text = _CONFIGURATION.format(
        **where,
        address=address,
        port=deployment.port,
        link_port=deployment.link_port,
        certificate=kit.certificate.resolve(),
        key=kit.tls_key.resolve(),
        authority=kit.authority.resolve(),
        calls="|".join(CALLS),
        hospitals=hospitals,
        most=2 * PIECE,
    )
    write_text(kit.terminator, text)


def command(kit: ServerKit) -> list[str]:
    """The command that runs the terminator in the foreground."""
    log = kit.logs.resolve() / "nginx.log"
    return [program(), "-e", str(log), "-c", str(kit.terminator.resolve()), "-p", str(Path(kit.path).resolve())]
