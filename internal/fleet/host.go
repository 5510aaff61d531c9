package fleet

import (
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// DefaultTenant owns the inventory until more tenants exist.
const DefaultTenant = "default"

// Host is a machine with sshd. It is in at most one cluster.
type Host struct {
	Address string // IP literal or DNS name as ParseAddress gives it, the key within its tenant
	Port    int    // TCP port of sshd, 22 unless given
	Cluster string // "" when in none

	State       HostState
	Reason      string    // why it is in this state, one sentence; "" when all is well
	StateSince  time.Time // when State last changed
	OperationID string    // the operation that last changed State, "" when none did

	OS        string // ID of os-release(5), lower case
	OSVersion string // VERSION_ID of os-release(5)
	OSTree    bool   // /run/ostree-booted exists
	Bootc     bool   // booted from a container image, see bootc(8)
	// PackageManager is apt, dnf, yum or zypper; "" when there is none, or when the
	// host was last looked at before this was asked.
	PackageManager string
	CPUs           int    // processors online
	Memory         int    // MiB
	Space          int64  // bytes, all local filesystems together
	BootID         string // /proc/sys/kernel/random/boot_id when last seen
	LastCheck      time.Time

	Labels  map[string]string
	Source  string
	Bastion string // address of the host through which it is reached, "" for that of its cluster or none

	HostKey *HostKey // pinned key, nil before the first contact

	Watch Watch // what was found of it between operations

	Bootstrapped time.Time // when a bootstrap last succeeded, zero when never
	Created      time.Time
}

// HostKey is the SSH host key that a host must present.
type HostKey struct {
	Key         string // authorized_keys form, "ssh-ed25519 AAAA…"
	Fingerprint string // "SHA256:…" as ssh-keygen -l prints it
	Pinned      time.Time
}

// Facts are what investigation finds on a host.
type Facts struct {
	OS, OSVersion string
	OSTree, Bootc bool
	// PackageManager is apt, dnf, yum or zypper, "" when there is none.
	PackageManager string
	CPUs           int   // processors online
	Memory         int   // MiB
	Space          int64 // bytes
	BootID         string
}

// HostState is where a host is in its life. The transitions stand in HostEvents.
type HostState string

// Host states, as the v0 contract names them.
const (
	HostInvestigating HostState = "investigating"
	HostBootstrapping HostState = "bootstrapping"
	HostActive        HostState = "active"
	HostDisassociated HostState = "disassociated"
	HostFailed        HostState = "failed"
)

// HostEvent is something that may change a host's state.
type HostEvent string

// What happens to hosts.
const (
	// HostInvestigate: a bootstrap begins, the first one or a retry.
	HostInvestigate HostEvent = "investigate"
	// HostFactsFound: the host was reached and its facts are stored.
	HostFactsFound HostEvent = "facts-found"
	// HostPrepared: bootstrap is done and no container manager holds the host.
	HostPrepared HostEvent = "prepared"
	// HostRegistered: the container manager of its cluster holds the host.
	HostRegistered HostEvent = "registered"
	// HostBroke: a step failed; the reason says which.
	HostBroke HostEvent = "broke"
	// HostRecovered: a failed host that was bootstrapped before works again.
	HostRecovered HostEvent = "recovered"
	// HostReturned: the same, of a host that a container manager holds.
	HostReturned HostEvent = "returned"
	// HostLost: checks between operations fail, again and again, or a rollout gave up
	// before it did anything to the host. A good check takes it back.
	HostLost HostEvent = "lost"
	// HostFound: a host that was lost answers again.
	HostFound HostEvent = "found"
	// HostFoundHeld: the same, of a host that was active and that a container manager
	// still holds.
	HostFoundHeld HostEvent = "found-held"
)

// HostTransition is one row of the host state machine.
type HostTransition struct {
	From  HostState
	Event HostEvent
	To    HostState
}

// HostTransitions is the whole host state machine; anything not in it is refused.
var HostTransitions = []HostTransition{
	{HostFailed, HostInvestigate, HostInvestigating},
	{HostActive, HostInvestigate, HostInvestigating},
	{HostDisassociated, HostInvestigate, HostInvestigating},
	{HostInvestigating, HostInvestigate, HostInvestigating},
	{HostBootstrapping, HostInvestigate, HostInvestigating},

	{HostInvestigating, HostFactsFound, HostBootstrapping},
	{HostBootstrapping, HostFactsFound, HostBootstrapping},

	{HostBootstrapping, HostPrepared, HostDisassociated},
	{HostActive, HostPrepared, HostDisassociated},
	{HostDisassociated, HostPrepared, HostDisassociated},

	{HostBootstrapping, HostRegistered, HostActive},
	{HostDisassociated, HostRegistered, HostActive},
	{HostActive, HostRegistered, HostActive},

	{HostInvestigating, HostBroke, HostFailed},
	{HostBootstrapping, HostBroke, HostFailed},
	{HostActive, HostBroke, HostFailed},
	{HostDisassociated, HostBroke, HostFailed},
	{HostFailed, HostBroke, HostFailed},

	{HostFailed, HostRecovered, HostDisassociated},
	{HostActive, HostRecovered, HostActive},
	{HostDisassociated, HostRecovered, HostDisassociated},

	{HostFailed, HostReturned, HostActive},
	{HostActive, HostReturned, HostActive},
	{HostDisassociated, HostReturned, HostActive},

	{HostActive, HostLost, HostFailed},
	{HostDisassociated, HostLost, HostFailed},

	{HostFailed, HostFound, HostDisassociated},
	{HostFailed, HostFoundHeld, HostActive},
}

// Next gives the state that follows s on event e; ok is false when the event
// is not possible in s.
func (s HostState) Next(e HostEvent) (to HostState, ok bool) {
	for _, t := range HostTransitions {
		if t.From == s && t.Event == e {
			return t.To, true
		}
	}
	return s, false
}

// ReadyToJoin says whether a host in this state may join a cluster.
func (s HostState) ReadyToJoin() bool { return s == HostActive || s == HostDisassociated }

// MaxAddressLength is the longest DNS name (RFC 1035 §2.3.4, in text form).
const MaxAddressLength = 253

var (
	addressPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// ParseAddress accepts a host address: an IPv4 or IPv6 literal (without zone)
// or a DNS name. Addresses are keys, and one machine under two keys could be
// restarted twice at once, so equal ones get one form: IPv6 its canonical text
// (RFC 5952), an IPv4-mapped address (::ffff:192.0.2.1) that of IPv4, and a name
// small letters without the dot of the root (RFC 4343, RFC 1034 §3.1).
func ParseAddress(s string) (string, error) {
	if strings.Contains(s, ":") {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return "", InvalidField("address", "holds a colon but is no IPv6 literal; give the SSH port in the member port")
		}
		return ip.Unmap().String(), nil
	}
	name := strings.TrimSuffix(s, ".")
	switch {
	case s == "":
		return "", InvalidField("address", "must not be empty")
	case len(name) > MaxAddressLength:
		return "", InvalidField("address", "must not be longer than %d characters", MaxAddressLength)
	case !addressPattern.MatchString(name) || name[0] == '-' || name[0] == '.' || strings.Contains(s, ".."):
		return "", InvalidField("address", "must be an IP literal or a host name of letters, digits, '-', '_' and '.'")
	}
	if _, err := netip.ParseAddr(name); err != nil && strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" {
		// Neither: 010.0.0.1 is another machine to each resolver (RFC 1123 §2.1).
		return "", InvalidField("address", "ends in a number but is no IPv4 literal of four decimal numbers without leading zeros")
	}
	return strings.ToLower(name), nil
}

// MaxNameLength bounds names of clusters, networks and container managers.
const MaxNameLength = 128

// ParseName accepts the name of a cluster, network or container manager:
// letters, digits, '-' and '_'. field is the member to blame.
func ParseName(field, s string) (string, error) {
	switch {
	case s == "":
		return "", InvalidField(field, "must not be empty")
	case len(s) > MaxNameLength:
		return "", InvalidField(field, "must not be longer than %d characters", MaxNameLength)
	case !namePattern.MatchString(s):
		return "", InvalidField(field, "must be letters, digits, '-' and '_'")
	}
	return s, nil
}

var userPattern = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}\$?$`)

// DefaultRemoteUser logs in to hosts when a request names nobody else.
const DefaultRemoteUser = "root"

// ParseRemoteUser accepts a Linux login name (useradd(8)); "" means root.
func ParseRemoteUser(s string) (string, error) {
	if s == "" {
		return DefaultRemoteUser, nil
	}
	if !userPattern.MatchString(s) {
		return "", InvalidField("remote_user", "must be a login name: a small letter or '_', then small letters, digits, '-', '_' or '.', 32 at most")
	}
	return s, nil
}

// DefaultPort is sshd's.
const DefaultPort = 22
