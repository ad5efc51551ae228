# The image that a run's container starts from, when BASE alone will not do: BASE with a Python, and with what was asked
# for by `spell run --apt`. Built by spell; by hand:
#
#   docker build --build-arg BASE=debian:bookworm --build-arg PYTHON=python3 --build-arg APT="git tree" - < cpu.Dockerfile
#
# BASE    the image to start from
# PYTHON  "python3" where BASE has no Python of 3.6 or later, else empty
# APT     packages, separated by spaces
#
# The secret `ca` is a file of CA certificates for packages over https. A mounted secret is in no layer; a builder that
# knows no secrets is given this text without the flag. Proxies come as predefined build arguments, which no layer keeps
# either: https://docs.docker.com/reference/dockerfile/#predefined-args
ARG BASE
FROM ${BASE}
ARG PYTHON=""
ARG APT=""
USER 0:0
RUN --mount=type=secret,id=ca,target=/run/spell-ca.crt,mode=0444 \
    set -eu; \
    ca=/run/spell-ca.crt; \
    set --; \
    if command -v apt-get >/dev/null; then \
        if [ -s "$ca" ]; then set -- -o "Acquire::https::CaInfo=$ca"; fi; \
        set -- "$@" -o Acquire::Languages=none; \
        export DEBIAN_FRONTEND=noninteractive; \
        apt-get "$@" update; \
        apt-get "$@" install --yes --no-install-recommends -- $PYTHON $APT; \
        apt-get clean; \
        rm -rf /var/lib/apt/lists/*; \
    elif [ -n "$APT" ]; then \
        echo "This image has no apt, so it cannot get: $APT"; exit 1; \
    elif command -v apk >/dev/null; then \
        if [ -s "$ca" ]; then export SSL_CA_CERT_FILE="$ca"; fi; \
        apk add --no-cache $PYTHON; \
    elif tool=$(command -v dnf || command -v microdnf || command -v yum); then \
        if [ -s "$ca" ]; then set -- "--setopt=sslcacert=$ca"; fi; \
        "$tool" "$@" install -y $PYTHON; \
        "$tool" clean all; \
    else \
        echo "This image has no Python of 3.6 or later, and no apt, apk or dnf to get one with."; exit 1; \
    fi
