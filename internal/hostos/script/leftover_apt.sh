# Prints what the upgrade would still do, from a simulation, and packages that
# are not fully installed. Held packages are in neither.
plan=$(apt-get -s --with-new-pkgs upgrade) || exit
printf '%s\n' "$plan" | sed -n '/^Inst /p' | cut -c 1-200 | sed 150q
dpkg --audit | cut -c 1-200 | sed 150q
