# Runs dnf or yum, which is $2, with $3…. $1: seconds to wait for a lock.
wait=$1 kind=$2
shift 2
d=$kind
command -v "$d" >/dev/null || d=${d}5
end=$(($(date +%s) + wait))
late() {
  echo "another process has held the lock of $d for $wait seconds" >&2
  exit 200
}
# dnf 4 and yum would wait for ever; told not to, they exit with 200. dnf 5 has no
# such setting, but any question to it waits as well, and can be broken off.
if [ "$kind" = dnf ]; then
  timeout "$wait" "$d" -C -q repoquery --installed none >/dev/null 2>&1
  [ $? != 124 ] || late
fi
while :; do
  "$d" --setopt=exit_on_lock=True "$@" && exit
  rc=$?
  [ $rc = 200 ] || exit $rc
  [ "$(date +%s)" -lt "$end" ] || late
  sleep 5
done
