# Runs zypper(8) with $2…. $1: seconds to wait for a lock.
export ZYPP_LOCK_TIMEOUT=$1
shift
zypper --non-interactive "$@"
rc=$?
if [ $rc = 103 ]; then # zypper itself is a newer one now, and may know of more
  zypper --non-interactive "$@"
  rc=$?
fi
# From 100 on all went well, but: 102 is "reboot needed", which is asked later.
case $rc in
100 | 101 | 102 | 103) exit 0 ;;
104) echo "zypper knows no package of one of the names" >&2 ;;
105) echo "zypper was interrupted" >&2 ;;
106) echo "zypper left out a repository that it could not refresh" >&2 ;;
107) echo "zypper installed all packages, but a script of one of them failed" >&2 ;;
esac
exit $rc
