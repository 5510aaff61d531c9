# Fetches the lists, then runs apt-get(8) with $2…. $1: seconds to wait for a lock.
# Nothing can ask: a configuration file that somebody changed stays as it is.
export DEBIAN_FRONTEND=noninteractive
wait=$1
shift
get() {
  apt-get -y -o "DPkg::Lock::Timeout=$wait" -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}
# apt-get waits for dpkg's lock, but not for the one of the lists. A list that
# cannot be fetched is an error: without it "up to date" would be a guess.
end=$(($(date +%s) + wait))
exec 3>&1
until said=$(get -o APT::Update::Error-Mode=any update 2>&1 >&3 3>&-); do
  case $said in
  *"Could not get lock"*)
    if [ "$(date +%s)" -lt "$end" ]; then
      [ -n "${told:-}" ] || printf '%s\nWaiting for it.\n' "$said" >&2
      told=yes
      sleep 1
      continue
    fi
    ;;
  esac
  printf '%s\n' "$said" >&2
  exit 100
done
exec 3>&-
[ -z "$said" ] || printf '%s\n' "$said" >&2
get "$@"
