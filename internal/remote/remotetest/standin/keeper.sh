# Waits until the program that runs the fleet is gone, however it went, then
# ends what it left behind: an orphaned sshd would hold its address for ever.
# stdin: a pipe held by the program. Arguments: the folders of the hosts.
cat >/dev/null
for h; do
  p=$(cat "$h/sshd.pid" 2>/dev/null)
  [ -n "$p" ] && [ "$(cat /proc/$p/comm 2>/dev/null)" = sshd ] && kill -9 "$p"
  for e in $(grep -lF "FLEET_HOST=$h" /proc/[0-9]*/environ 2>/dev/null); do
    p=${e%/environ}; kill -9 "${p#/proc/}" 2>/dev/null
  done
done
exit 0 # what it found may have ended by itself
