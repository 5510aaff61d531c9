# Upgrades what is installed. $1: seconds to wait for a lock, $2: dnf or yum.
# Both would wait for a lock for ever; told not to, they exit with 200.
[ "$2" != dnf ] || command -v dnf >/dev/null || dnf() { dnf5 "$@"; }
end=$(($(date +%s) + $1))
while :; do
  "$2" --setopt=exit_on_lock=True update -y && exit
  rc=$?
  [ $rc = 200 ] && [ "$(date +%s)" -lt "$end" ] || exit $rc
  sleep 2
done
