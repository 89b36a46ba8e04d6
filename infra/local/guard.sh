#!/bin/sh
# guard.sh SIGNAL COMMAND...: runs a server that must not outlive the process that started this script.
#
# That process cannot act when it is SIGKILLed. But it holds the only other end of our standard input: when that closes, for
# whatever reason, the server is asked to end with SIGNAL, and killed after 10 s. The server's process number goes to descriptor 3.
#
# The main shell is the server's parent and alone waits for it: until then the number cannot pass to a stranger.

signal=$1
shift
server=
exec 5<&0 </dev/null
trap '[ -z "$server" ] || kill -s "$signal" "$server" 2>/dev/null' TERM INT HUP
"$@" 3>&- 5<&- &
server=$!
echo "$server" >&3
exec 3>&-

( # the watcher: reads until the other end closes
  while read -r _; do :; done <&5
  trap 'exit 0' TERM # not before: some shells let a trap wait for the end of a read
  kill -s TERM $$
  tries=100
  while [ "$tries" -gt 0 ] && kill -0 "$server"; do
    sleep 0.1
    tries=$((tries - 1))
  done
  kill -s KILL "$server"
) >/dev/null 2>&1 &
watcher=$!
exec 5<&-

# a signal to us interrupts the waiting: then the server is still there, and we wait again
while :; do
  wait "$server"
  code=$?
  kill -0 "$server" 2>/dev/null || break
done
kill -s TERM "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null # so that nothing is left to wait for where nobody waits for orphans (a container without an init)
exit "$code"
