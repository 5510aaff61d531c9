# Prints "installed NAME" or "missing NAME" for each of $1…. What is not wholly
# installed is missing. A package may be there for several architectures.
command -v dpkg-query >/dev/null || exit
for p; do
  if dpkg-query -W -f '${db:Status-Status}\n' -- "$p" 2>/dev/null | grep -qx installed
  then echo "installed $p"; else echo "missing $p"; fi
done
