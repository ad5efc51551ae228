#!/usr/bin/env bash
# Version:        uvicorn 0.54.0 (with h11 0.16.0)
# Behaviour:      Behind a reverse proxy on a Unix socket (`--uds`), X-Forwarded-Proto and X-Forwarded-For have no
#                 effect, whatever `--forwarded-allow-ips` names: an address, all networks, or the path of the socket.
#                 Only "*" helps. Over TCP from 127.0.0.1 they work without any option.
# Expectation:    `uvicorn --help` says that the option takes "literals (e.g. UNIX Socket path) to trust with proxy
#                 headers", so the path of the socket should do. But the peer of a Unix socket has no address in the
#                 scope, and no literal is ever equal to that.
# Whom it hurts:  Everyone with nginx in front of a Unix socket: redirects lead to http://, and the address of the
#                 client is unknown.
set -euo pipefail

folder=$(mktemp -d)
server=
stop() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap 'stop; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = f"{scope['scheme']} {scope['client'] and scope['client'][0]}".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
PYTHON

cat >ask.py <<'PYTHON'
import socket
import sys
import time

place = sys.argv[1]
for _ in range(300):  # until the server listens
    peer = socket.socket(socket.AF_INET if place.isdigit() else socket.AF_UNIX)
    try:
        peer.connect(("127.0.0.1", int(place)) if place.isdigit() else place)
        break
    except OSError:
        peer.close()
        time.sleep(0.1)
lines = ["GET / HTTP/1.1", "Host: h", "X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.7", "Connection: close"]
peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
answer = b"".join(iter(lambda: peer.recv(4096), b""))
print(answer.partition(b"\r\n\r\n")[2].decode())
PYTHON

ask() { # ask PLACE OPTION…: scheme and client address that the application sees
    local place=$1
    shift
    venv/bin/uvicorn --log-level warning "$@" app:app &
    server=$!
    said=$(venv/bin/python ask.py "$place")
    stop
    printf '%-55s %s\n' "${*/$folder\//}" "$said"
}

seen=()
for trusted in 127.0.0.1 0.0.0.0/0,::/0 "$folder/s.sock" "unix:$folder/s.sock" '*'; do
    ask "$folder/s.sock" --uds "$folder/s.sock" --forwarded-allow-ips "$trusted"
    seen+=("$said")
done
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
ask "$port" --port "$port"
seen+=("$said")

if [ "${seen[*]}" = "http None http None http None http None https 203.0.113.7 https 203.0.113.7" ]; then
    echo 'VERDICT: still so: on a Unix socket only "*" is trusted'
    exit 0
fi
echo "VERDICT: changed"
exit 1
