package chaos

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/jackc/pgx/v5"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// kind is an operation that is tried, and the cluster that it is tried on.
type kind struct{ name, cluster string }

// kinds are tried in this order, in which a host may live through them.
var kinds = []kind{
	{"bootstrap", packagesCluster},
	{"restart", packagesCluster},
	{"upgrade", packagesCluster},
	{"deploy", imagesCluster},
	{kindCommand, commandsCluster},
	{kindCancelled, commandsCluster},
	{kindForced, commandsCluster},
}

// The clusters of a lane. One has hosts of all sorts: its upgrade takes every way
// that there is. One has only hosts that a deploy is for. The hosts on which commands
// run are reached through a bastion.
const (
	packagesCluster = harness.Cluster
	imagesCluster   = "images"
	commandsCluster = "commands"
	bastionCluster  = "bastion"
	hostCount       = 3 // of each, but of the last
	budget          = 2 // max_unavailable of every rollout
)

var machines = []remotetest.HostConfig{
	{Name: "debian", OS: remotetest.OS{ID: "debian", VersionID: "12"}},
	{Name: "fedora", OS: remotetest.OS{ID: "fedora", VersionID: "42"}},
	{Name: "ostree", OS: remotetest.OS{ID: "fedora", VersionID: "42", OSTree: true}},
	{Name: "image1", OS: remotetest.OS{ID: "fedora", VersionID: "42", OSTree: true}},
	{Name: "image2", OS: remotetest.OS{ID: "fedora", VersionID: "42", OSTree: true}},
	{Name: "image3", OS: remotetest.OS{ID: "fedora", VersionID: "42", OSTree: true}},
	{Name: "command1"},
	{Name: "command2"},
	{Name: "command3"},
	{Name: "bastion"},
}

func (k kind) rollout() bool { return fleet.OperationKind(k.name).Rollout() }

func (l *lane) hosts(k kind) []*remotetest.Host {
	all := l.Fleet.Hosts()
	switch k.cluster {
	case imagesCluster:
		return all[hostCount : 2*hostCount]
	case commandsCluster:
		return all[2*hostCount : 3*hostCount]
	case bastionCluster:
		return all[3*hostCount:]
	}
	return all[:hostCount]
}

// bastion is the host through which those of commands are reached.
func (l *lane) bastion() *remotetest.Host { return l.hosts(kind{cluster: bastionCluster})[0] }

// want is what one operation must have done to a host.
type want struct {
	effects  map[string]int    // by the host's own ledger, which must have nothing else
	steps    []string          // in the record, each once
	packages map[string]string // installed versions
	booted   string            // OSTree version, "" for any
	ends     ending            // of a command
}

// order is an operation to be carried out.
type order struct {
	kind
	version string // of a deploy
	wants   map[*remotetest.Host]want

	cancelled bool // while it is carried out
}

// offer gives the hosts of a kind something to change to.
func (l *lane) offer(k kind) (order, error) {
	l.round++
	o := order{kind: k, version: deployed[0], wants: map[*remotetest.Host]want{}, cancelled: k.name == kindCancelled || k.name == kindForced}
	if l.hosts(k)[0].Booted() == o.version {
		o.version = deployed[1]
	}
	for _, h := range l.hosts(k) {
		w := want{effects: map[string]int{}}
		var err error
		switch k.name {
		case "bootstrap":
			w.effects["uname -a"] = 1
			w.steps = []string{workflows.StepInvestigate, workflows.StepPrepare}
		case "restart":
			w.steps = []string{workflows.StepCheck}
			w.reboots()
		case "upgrade":
			err = w.upgrade(h, strconv.Itoa(l.round)+".0")
		case "deploy":
			w.stages("deploy", o.version)
		default:
			w.runs(ran)
			err = l.gate(h, k.name != kindCommand)
		}
		if err != nil {
			return o, err
		}
		o.wants[h] = w
	}
	return o, nil
}

// deployed are the versions between which deploys go to and fro: a stand-in looks
// through all that were ever published.
var deployed = []string{"2.0", "3.0"}

// stages adds what a host does that boots images.
func (w *want) stages(verb, version string) {
	w.effects["rpm-ostree "+verb] = 1
	w.steps = []string{workflows.StepStage, workflows.StepCheck, workflows.StepRebootNeeded}
	w.booted = version
	w.reboots()
}

// reboots adds one reboot.
func (w *want) reboots() {
	w.effects[rebootEffect], w.effects[bootEffect] = 1, 1
	w.steps = append(w.steps, workflows.StepReboot, workflows.StepWait, workflows.StepVerify)
}

// upgrade offers new versions to a host. Among Debian's is one that wants a reboot.
func (w *want) upgrade(h *remotetest.Host, version string) error {
	if h.Name() == "ostree" {
		w.stages("upgrade", version)
		return h.PublishOSTree(version)
	}
	w.packages = map[string]string{"bash": version, "openssl": version}
	w.steps = []string{workflows.StepCheck, workflows.StepUpgrade, workflows.StepVerifyPackages, workflows.StepRebootNeeded}
	if h.Name() == "debian" {
		w.effects["apt-get upgrade"] = 1
		w.packages["systemd"] = version
		w.reboots()
	} else {
		w.effects["dnf update"] = 1
		w.steps = append(w.steps, workflows.StepVerify)
	}
	for name := range w.packages {
		if err := h.Publish(name, version); err != nil {
			return err
		}
	}
	return nil
}

// request orders the operation: a bootstrap of each host, or a rollout or a command over
// the cluster. It gives the ids of the operations.
func (l *lane) request(ctx context.Context, o order) ([]string, error) {
	latest, err := l.latest(ctx)
	if err != nil {
		return nil, err
	}
	cluster := "cluster/" + o.cluster
	switch {
	case o.command():
		if err := l.Call(ctx, http.MethodPost, cluster+"/command", commandBody(commandPage)); err != nil {
			return nil, err
		}
	case o.rollout():
		body := map[string]any{"policy": map[string]any{"max_unavailable": budget}}
		if o.name == "deploy" {
			body["version"] = o.version
		}
		if err := l.Call(ctx, http.MethodPut, cluster+"/"+o.name, body); err != nil {
			return nil, err
		}
	default:
		body := map[string]any{}
		if o.cluster == commandsCluster {
			body["bastion"] = l.bastion().Address()
		}
		if err := l.Call(ctx, http.MethodPut, cluster, body); err != nil {
			return nil, err
		}
		for _, h := range l.hosts(o.kind) {
			body := l.HostBody(h)
			body["cluster"] = o.cluster
			if err := l.Call(ctx, http.MethodPut, hostPath(h), body); err != nil {
				return nil, err
			}
			l.joined++
		}
	}
	return l.since(ctx, latest)
}

// latest is the id of the latest operation, or one before all.
func (l *lane) latest(ctx context.Context) (id string, err error) {
	err = l.DB.QueryRow(ctx, `SELECT coalesce((SELECT id::text FROM operation ORDER BY id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000')`).Scan(&id)
	return id, err
}

// since gives the ids of the operations after one.
func (l *lane) since(ctx context.Context, latest string) ([]string, error) {
	rows, err := l.DB.Query(ctx, `SELECT id::text FROM operation WHERE id > $1::uuid ORDER BY id`, latest)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// forget removes hosts from the inventory, so that they can be bootstrapped anew.
func (l *lane) forget(ctx context.Context, k kind) error {
	for _, h := range l.hosts(k) {
		if err := l.Call(ctx, http.MethodDelete, hostPath(h), nil); err != nil {
			return err
		}
		l.joined--
	}
	return nil
}

func hostPath(h *remotetest.Host) string { return "host/" + url.PathEscape(h.Address()) }

// roots are the ids of the workflows of an order that no other workflow started.
func (l *lane) roots(k kind, ids []string) (roots []string) {
	switch {
	case k.rollout():
		return []string{workflows.ClusterWorkflowID(fleet.DefaultTenant, k.cluster)}
	case k.command():
		for _, id := range ids {
			roots = append(roots, workflows.CommandWorkflowID(fleet.DefaultTenant, id))
		}
		return roots
	}
	for _, h := range l.hosts(k) {
		roots = append(roots, workflows.HostWorkflowID(fleet.DefaultTenant, h.Address()))
	}
	return roots
}
