# Prints the status as JSON, one member a line as rpm-ostree does, without long
# texts: those of hosts that boot container images hold whole manifests.
json=$(rpm-ostree status --json) || exit
printf '%s\n' "$json" | sed -E 's/^( *"[^"]*" : ").{1000,}"(,?)$/\1"\2/'
