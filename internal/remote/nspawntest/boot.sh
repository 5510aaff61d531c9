# Arguments: the machine's folder, the base tree, name, bridge, control group
# folders. Runs in the machines' network and in a mount namespace of its own, so
# that what is mounted here goes with the machine. Ends as nspawn ends.
set -e
dir=$1 base=$2 name=$3 bridge=$4
shift 4
for group; do echo $$ > "$group/cgroup.procs"; done
# nspawn keeps state by machine name in /run, and names need not differ between
# two sets of machines.
mount -t tmpfs tmpfs /run
cd "$dir"
mount -t overlay overlay -o "lowerdir=$base,upperdir=up,workdir=work" root
# What a power cut left of the link.
ip link delete "vb-$name" 2>/dev/null || true
exec systemd-nspawn --quiet --directory=root --boot --settings=no \
	--register=no --keep-unit --machine="$name" --hostname="$name" \
	--network-veth --network-bridge="$bridge" \
	--resolv-conf=off --timezone=off --link-journal=no --console=pipe
