# Is the kernel that the next boot takes, by its link, the one that runs?
now=$(cat /proc/sys/kernel/osrelease)
for link in "$root/vmlinuz" "$root/boot/vmlinuz"; do
  next=$(readlink "$link") || continue
  next=${next##*/vmlinuz-}
  next=${next#vmlinuz-}
  [ "$next" != "$now" ] || break
  printf 'needed\nkernel %s is installed and %s runs\n' "$next" "$now"
  exit
done
echo not-needed
