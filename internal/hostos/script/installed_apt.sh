# Prints "installed NAME" or "missing NAME" for each of $1…. What is not wholly
# installed is missing. A package may be there for several architectures. One that
# provides the name counts: to install by that name would put another in its place.
command -v dpkg-query >/dev/null || exit
all=$(dpkg-query -W -f '${db:Status-Status} ${Package}, ${Provides}\n') || exit
# A line for each name, without the versions "(= 1.0)" that come with some.
have=$(printf '%s\n' "$all" | sed -n 's/^installed //p' | sed 's/([^)]*)//g' | tr ', ' '\n\n')
for p; do
  if printf '%s\n' "$have" | grep -xF -e "$p" >/dev/null
  then echo "installed $p"; else echo "missing $p"; fi
done
