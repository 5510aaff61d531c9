# Prints "needed" or "not-needed", then why. $1: dnf or yum. Exit codes cannot
# tell: 1 is "needed", and also that the plugin is not there.
d=$1
command -v "$d" >/dev/null || d=${d}5
if [ "$1" = yum ]; then said=$(needs-restarting -r 2>/dev/null)
else said=$("$d" -C needs-restarting -r 2>/dev/null)
fi
case $said in
*"Reboot is required"*)
  echo needed
  echo "updated since it booted:"
  printf '%s\n' "$said" | sed -n 's/^  *\** *//p' | sed 20q
  exit ;;
*"Reboot should not be necessary"* | *"Reboot is probably not necessary"*)
  echo not-needed
  exit ;;
esac
# Without the plugin: is the kernel that was installed last the one that runs?
now=$(cat /proc/sys/kernel/osrelease)
last=$(rpm -q --whatprovides kernel-uname-r --qf '%{INSTALLTIME} %{VERSION}-%{RELEASE}.%{ARCH}\n' 2>/dev/null |
  grep '^[0-9]' | sort -n | sed -n '$s/^[0-9]* //p')
case $now in
"${last:-$now}" | "$last"+*) echo not-needed ;;
*) printf 'needed\nkernel %s is installed and %s runs\n' "$last" "$now" ;;
esac
