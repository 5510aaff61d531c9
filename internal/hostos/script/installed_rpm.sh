# Prints "installed NAME" or "missing NAME" for each of $1…. A package that
# provides the name counts, since an install by that name brings it.
command -v rpm >/dev/null || exit
for p; do
  if rpm -q --whatprovides -- "$p" >/dev/null 2>&1
  then echo "installed $p"; else echo "missing $p"; fi
done
