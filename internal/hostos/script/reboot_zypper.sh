# Prints "needed" or "not-needed", then why. zypper(8) answers with 0 or 102; an
# old one does not know the question. $1: seconds to wait for a lock.
root=${COMMISSAIRE_OS_ROOT:-}
export ZYPP_LOCK_TIMEOUT=$1
zypper --non-interactive needs-rebooting >/dev/null
rc=$?
case $rc in
0) echo not-needed; exit ;;
102) printf 'needed\nzypper says so\n'; exit ;;
2) ;;
*) exit $rc ;;
esac
