"""The client over both transports: with the CA file it connects, without it it must reject the certificate."""

import sys

from muse_as_service import MUSEClient

url, ca_file = sys.argv[1:]
results = []
for grpc in (False, True):
    with MUSEClient(url=url, ca_file=ca_file, grpc=grpc) as client:
        client.login("admin", "admin")
        results.append(str(client.embed(["Where is the library?", "¿Dónde está la biblioteca?"]).shape))
for grpc in (False, True):
    with MUSEClient(url=url, grpc=grpc, retry_for=0, timeout=5) as client:
        try:
            client.login("admin", "admin")
        except Exception:
            results.append("rejected")
print(*results)
