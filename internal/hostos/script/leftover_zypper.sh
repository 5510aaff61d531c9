# Prints the names of updates that are left, without a look at the network: what was
# published a moment ago was not asked for. $1: seconds to wait for a lock.
export ZYPP_LOCK_TIMEOUT=$1
list=$(zypper --non-interactive --no-refresh --xmlout list-updates)
rc=$?
# Names only: with their descriptions they can be too many to read.
printf '%s\n' "$list" | sed 's/<update /\n&/g' |
  sed -n 's/^<update \([^>]* \)*name="\([^"]*\)".*/\2/p' | cut -c 1-200 | sed 300q
exit $rc
