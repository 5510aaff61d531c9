# Arguments: the machine's folder, name, bridge, control group folders. As boot.sh,
# for a machine that boots OSTree deployments.
set -e
dir=$1 name=$2 bridge=$3
shift 3
for group; do echo $$ > "$group/cgroup.procs"; done
mount -t tmpfs tmpfs /run
cd "$dir/sysroot"
ip link delete "vb-$name" 2>/dev/null || true
# The boot loader: the entry with the highest version says what is booted.
entry=$(grep -H '^version ' boot/loader/entries/*.conf | sort -t ' ' -k 2 -n | tail -n 1 | cut -d : -f 1)
deployment=$(readlink -f "$PWD$(sed -n 's/^options \(.* \)\?ostree=\([^ ]*\).*/\2/p' "$entry")")
echo "[nspawntest] boots $deployment"
: > "$dir/ostree-booted"
exec systemd-nspawn --quiet --directory="$deployment" --boot --settings=no \
	--bind="$PWD:/sysroot" --bind="$PWD/boot:/boot" --bind="${deployment%/deploy/*}/var:/var" \
	--bind-ro="$deployment/usr:/usr" --bind-ro="$dir/ostree-booted:/run/ostree-booted" \
	--register=no --keep-unit --machine="$name" --hostname="$name" \
	--network-veth --network-bridge="$bridge" \
	--resolv-conf=off --timezone=off --link-journal=no --console=pipe
