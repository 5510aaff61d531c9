# Upgrades what is installed. $1: seconds to wait for a lock, $2: dnf or yum.
d=$2
command -v "$d" >/dev/null || d=${d}5
end=$(($(date +%s) + $1))
late() {
  echo "another process has held the lock of $d for $1 seconds" >&2
  exit 200
}
# dnf 4 and yum would wait for ever; told not to, they exit with 200. dnf 5 has no
# such setting, but any question to it waits as well, and can be broken off.
if [ "$2" = dnf ]; then
  timeout "$1" "$d" -C -q repoquery --installed none >/dev/null 2>&1
  [ $? != 124 ] || late "$1"
fi
while :; do
  "$d" --setopt=exit_on_lock=True update -y && exit
  rc=$?
  [ $rc = 200 ] || exit $rc
  [ "$(date +%s)" -lt "$end" ] || late "$1"
  sleep 5
done
