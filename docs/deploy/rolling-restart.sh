#!/bin/sh
# Restarts servers one after the other; the next one only when the last is ready again.
#   rolling-restart.sh 10.0.0.1:8017 10.0.0.2:8017 10.0.0.3:8017 10.0.0.4:8017
# RESTART names another command that restarts one: it is given HOST:PORT, and returns when the old one has ended.
set -eu

by_ssh() {
    ssh "${1%:*}" systemctl restart alignbeam
}

is_ready() {
    curl -fsS -m 5 -o /dev/null -H 'Host: localhost' "http://$1/health" 2>/dev/null
}

for server in "$@"; do
    is_ready "$server" || { echo "$server is not ready: nothing more is restarted" >&2; exit 1; }
done
for server in "$@"; do
    echo "restarting $server"
    ${RESTART:-by_ssh} "$server"
    waited=0
    until is_ready "$server"; do
        waited=$((waited + 1))
        [ "$waited" -lt "${PATIENCE:-600}" ] || { echo "$server is not ready: the others stay" >&2; exit 1; }
        sleep 1
    done
    sleep "${SETTLE:-6}" # until the proxy asks it again
done
echo "all restarted"
