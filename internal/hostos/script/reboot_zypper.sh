# Prints "needed" or "not-needed", then why. zypper(8) answers with 0 or 102; an
# old one does not know the question.
root=${COMMISSAIRE_OS_ROOT:-}
zypper --non-interactive needs-rebooting >/dev/null 2>&1
case $? in
0) echo not-needed; exit ;;
102) printf 'needed\nzypper says so\n'; exit ;;
esac
