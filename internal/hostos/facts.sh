# Prints what a host is, one key=value a line. POSIX sh; reads only.
root=${COMMISSAIRE_OS_ROOT:-}
release=$root/etc/os-release
[ -r "$release" ] || release=$root/usr/lib/os-release
if [ -r "$release" ]; then
  sed -n 's/^ID=/os=/p; s/^VERSION_ID=/os_version=/p' "$release"
fi
if [ -e "$root/run/ostree-booted" ]; then echo ostree=true; else echo ostree=false; fi
# A host may have bootc and yet not boot from an image.
is=false
if command -v bootc >/dev/null; then
  case $(timeout 10 bootc status --json 2>/dev/null | tr -d ' \n') in *'"type":"bootcHost"'*) is=true ;; esac
fi
echo "bootc=$is"
# A system may carry another one's package manager, to build images for example:
# its own comes first.
case $(sed -n 's/^ID=/ /p; s/^ID_LIKE=/ /p' "$release" 2>/dev/null | tr -d "\"'" | tr '\n' ' ') in
*' debian '* | *' ubuntu '*) own=apt-get ;;
*suse* | *' sles '*) own=zypper ;;
*) own= ;;
esac
for c in $own dnf dnf5 yum zypper apt-get; do
  command -v "$c" >/dev/null || continue
  case $c in dnf5) c=dnf ;; apt-get) c=apt ;; esac
  echo "package_manager=$c"
  break
done
# For people, when none of these is there.
echo "other_managers=$(for c in apk pacman emerge xbps-install opkg nix-env transactional-update; do
  command -v "$c" >/dev/null && printf '%s ' "$c"
done)"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c '^processor' /proc/cpuinfo)"
sed -n 's/^MemTotal: *\([0-9]*\) kB$/memory_kib=\1/p' /proc/meminfo
# Local, real filesystems, each device once: what df(1) calls 1024-blocks.
df -kP 2>/dev/null | awk 'NR > 1 && $1 ~ /^\// && !seen[$1]++ { kib += $2 } END { printf "space_kib=%d\n", kib }'
echo "boot_id=$(cat "${COMMISSAIRE_BOOT_ID_FILE:-/proc/sys/kernel/random/boot_id}")"
