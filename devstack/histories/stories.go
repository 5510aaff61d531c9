package histories

import (
	"net/http"
	"os"
	"path/filepath"
	"time"

	"commissaire/internal/remote/remotetest"
)

// story is something that happens to a cluster of its name, with these hosts.
type story struct {
	name  string
	hosts []remotetest.OS
	play  func(*recorder)
}

var (
	debian = remotetest.OS{ID: "debian", VersionID: "12"}
	ostree = remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}
)

var stories = []story{
	{"bootstrap", []remotetest.OS{debian, debian, debian}, bootstraps},
	{"finished", []remotetest.OS{debian, debian}, finished},
	{"upgraded", []remotetest.OS{debian, debian}, upgraded},
	{"staged", []remotetest.OS{ostree, ostree}, staged},
	{"side-by-side", []remotetest.OS{debian, debian, debian}, sideBySide},
	{"approved", []remotetest.OS{debian, debian}, approved},
	{"paused", []remotetest.OS{debian, debian}, paused},
	{"failed", []remotetest.OS{debian, debian}, failed},
	{"cancelled", []remotetest.OS{debian, debian}, cancelled},
	{"lost", []remotetest.OS{debian, debian}, lost},
	{"commanded", []remotetest.OS{debian, debian}, commands},
}

// long is the installation in which a history is long when it has a page of a command.
const (
	long       = "long"
	longEvents = 6
)

var longStories = []story{{"continued", []remotetest.OS{debian, debian}, continued}}

var keepingStories = []story{{"kept", []remotetest.OS{debian, debian, debian}, kept}}

// slowReboot leaves time to do something meanwhile.
var slowReboot = remotetest.Reboot{Shutdown: 3 * time.Second}

// bootstraps end well, fail, are cancelled, and wait for a host that a rollout
// holds.
func bootstraps(r *recorder) {
	bad, slow, good := r.hosts[0], r.hosts[1], r.hosts[2]
	r.try(func() error { return bad.OnCommand("uname", "exit 3") })
	r.try(func() error { return slow.OnCommand("uname", `: >"$FLEET_HOST/began"; sleep 60`) })
	r.makeCluster()
	for _, h := range r.hosts {
		r.add(h)
	}
	r.ends(ofHost(bad), "failed")
	r.ends(ofHost(good), "succeeded")
	r.until("the command of the bootstrap", func() (bool, error) {
		_, err := os.Stat(filepath.Join(slow.Dir(), "began"))
		return err == nil, nil
	})
	r.call(http.MethodDelete, "host/"+slow.Address(), nil)
	r.write(hostID(bad), "Bootstrap-failed")
	r.write(hostID(slow), "Bootstrap-cancelled")
	r.write(hostID(good), "Bootstrap-finished")
	r.call(http.MethodDelete, "host/"+bad.Address(), nil)

	good.SetReboot(slowReboot)
	r.order("restart", nil)
	r.rebooting(good)
	r.call(http.MethodPut, "host/"+good.Address()+"/bootstrap", nil)
	r.ends(r.ofCluster(), "succeeded")
	r.ends(ofHost(good), "succeeded")
	r.write(hostID(good), "Bootstrap-held")
}

// finished is what happens without a policy.
func finished(r *recorder) {
	r.bootstrap()
	r.order("restart", nil)
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-finished")
	r.write(r.slot(0), "Slot-finished")
}

// upgraded is an upgrade of packages; one of two hosts wants a reboot.
func upgraded(r *recorder) {
	r.bootstrap()
	r.try(func() error { return r.hosts[0].Publish("bash", "2.0") })
	r.try(func() error { return r.hosts[1].Publish("systemd", "2.0") })
	r.order("upgrade", nil)
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-upgraded")
	r.write(r.slot(0), "Slot-upgraded")
	r.write(r.slot(1), "Slot-upgraded-and-rebooted")
}

// staged is an upgrade of images: every host stages before the first one boots.
func staged(r *recorder) {
	r.bootstrap()
	for _, h := range r.hosts {
		r.try(func() error { return h.PublishOSTree("2.0") })
	}
	r.order("upgrade", nil)
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-staged")
	r.write(r.slot(0), "Slot-staged", "Slot-booted")
}

// sideBySide has two slots, and watches each host for a moment.
func sideBySide(r *recorder) {
	r.bootstrap()
	r.order("restart", map[string]any{"max_unavailable": 2, "min_ready": "1s", "host_timeout": "10m"})
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-side-by-side")
	r.write(r.slot(0), "Slot-settled")
}

// approved goes on after its canary when somebody says so.
func approved(r *recorder) {
	r.bootstrap()
	r.order("restart", map[string]any{"canary": map[string]any{"hosts": 1, "then": "approve"}})
	r.waits()
	r.steer("approve", map[string]any{})
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-approved")
}

// paused is paused while its first host is away, and resumed when nobody is.
func paused(r *recorder) {
	r.hosts[0].SetReboot(slowReboot)
	r.bootstrap()
	r.order("restart", nil)
	r.rebooting(r.hosts[0])
	r.steer("pause", map[string]any{})
	r.waits()
	r.steer("resume", map[string]any{})
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-paused")
	r.write(r.slot(0), "Slot-paused")
}

// failed stops at a host that does not come back.
func failed(r *recorder) {
	r.hosts[1].SetReboot(remotetest.Reboot{NeverReturns: true})
	r.bootstrap()
	r.order("restart", nil)
	r.ends(r.ofCluster(), "failed")
	r.write(r.rollout(), "Rollout-failed")
	r.write(r.slot(1), "Slot-failed")
}

// cancelled is ended at once while its first host is away.
func cancelled(r *recorder) {
	r.hosts[0].SetReboot(slowReboot)
	r.bootstrap()
	r.order("restart", nil)
	r.rebooting(r.hosts[0])
	r.steer("cancel", map[string]any{"force": true})
	r.ends(r.ofCluster(), "cancelled")
	r.write(r.rollout(), "Rollout-cancelled")
	r.write(r.slot(0), "Slot-cancelled")
}

// lost goes on although somebody terminates the workflow of a host.
func lost(r *recorder) {
	r.hosts[0].SetReboot(slowReboot)
	r.bootstrap()
	r.order("restart", map[string]any{"max_failures": 1})
	r.rebooting(r.hosts[0])
	r.try(func() error { return r.Temporal.TerminateWorkflow(r.ctx, r.slot(0), "", "recorded") })
	r.ends(r.ofCluster(), "failed")
	r.write(r.rollout(), "Rollout-lost")
}

// kept has one workflow for its slot, host after host.
func kept(r *recorder) {
	r.bootstrap()
	r.order("restart", nil)
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout()+"/slot-1", "Slot-kept")
}
