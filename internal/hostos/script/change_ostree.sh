# Runs rpm-ostree $2…, which stages. $1: seconds to wait while another one is at
# work, for whom rpm-ostree itself does not wait.
end=$(($(date +%s) + $1))
shift
exec 3>&1
until said=$(rpm-ostree "$@" 2>&1 >&3 3>&-); do
  rc=$?
  case $said in
  *"Transaction in progress"*)
    if [ "$(date +%s)" -lt "$end" ]; then
      [ -n "${told:-}" ] || printf '%s\nWaiting for its end.\n' "$said" >&2
      told=yes
      sleep 2
      continue
    fi
    ;;
  esac
  printf '%s\n' "$said" >&2
  exit $rc
done
[ -z "$said" ] || printf '%s\n' "$said" >&2
