# Prints which updates are left, and exits with 100 when there are any. $1: dnf
# or yum. It asks the metadata that the upgrade had: what was published a moment
# ago was not asked for.
d=$1
command -v "$d" >/dev/null || d=${d}5
list=$("$d" -C -q check-update)
rc=$?
printf '%s\n' "$list" | cut -c 1-200 | sed 300q
exit $rc
