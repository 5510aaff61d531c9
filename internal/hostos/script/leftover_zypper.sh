# Prints which updates are left, as XML, without a look at the network: what was
# published a moment ago was not asked for.
zypper --non-interactive --no-refresh --xmlout list-updates
