# Prints "needed" or "not-needed", then why.
root=${COMMISSAIRE_OS_ROOT:-}
for f in "$root/run/reboot-required" "$root/var/run/reboot-required"; do
  [ -e "$f" ] || continue
  echo needed
  if [ -s "$f.pkgs" ]; then echo "asked for by:"; sort -u "$f.pkgs" | sed 20q; fi
  exit
done
# Not every system has what writes that file.
