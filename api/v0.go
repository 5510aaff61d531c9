package api

import (
	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// The JSON shapes of the old API. Lists are never null: its clients iterate.

func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

func clusterDetail(c store.ClusterView) gen.ClusterDetail {
	return gen.ClusterDetail{
		Name:             c.Name,
		Status:           c.Counts.Status(),
		Network:          c.Network,
		Hostset:          list(c.Members),
		ContainerManager: c.ContainerManager,
		Hosts: gen.HostCounts{
			Total:       c.Counts.Total,
			Available:   c.Counts.Available,
			Unavailable: c.Counts.Unavailable(),
		},
		Profile: c.Profile,
		Bastion: c.Bastion,
	}
}

// clusterMembers leaves the status empty: v0 computes it on GET of the cluster only.
func clusterMembers(c store.ClusterView) gen.ClusterMembers {
	return gen.ClusterMembers{Name: c.Name, Network: c.Network, Hostset: list(c.Members), ContainerManager: c.ContainerManager}
}

func host(h fleet.Host) gen.Host {
	v := gen.Host{
		Address:   h.Address,
		Status:    gen.HostState(h.State),
		Os:        h.OS,
		Cpus:      h.CPUs,
		Memory:    h.Memory,
		Space:     h.Space,
		LastCheck: fleet.FormatTime(h.LastCheck),
		Source:    h.Source,
		Cluster:   h.Cluster,
		Reason:    h.Reason,
		OsVersion: h.OSVersion,
		Ostree:    h.OSTree,
		BootId:    h.BootID,
		Bootc:     h.Bootc,
		Labels:    h.Labels,
		Bastion:   h.Bastion,

		PackageManager: h.PackageManager,
	}
	if h.Port != fleet.DefaultPort {
		v.Port = h.Port
	}
	if h.HostKey != nil {
		v.HostKeyFingerprint = h.HostKey.Fingerprint
	}
	if w := h.Watch; w.State != fleet.WatchNever {
		v.Watch = &gen.HostWatch{State: gen.HostWatchState(w.State), Reason: w.Reason, Since: fleet.FormatTime(w.Since), Failures: w.Failures, CheckedAt: fleet.FormatTime(w.Checked)}
		if !w.Rebooted.IsZero() {
			v.Watch.RebootedAt = fleet.FormatTime(w.Rebooted)
		}
	}
	return v
}

func hostKey(address string, k fleet.HostKey) gen.HostKey {
	return gen.HostKey{Address: address, Key: k.Key, Fingerprint: k.Fingerprint, PinnedAt: fleet.FormatTime(k.Pinned)}
}

func network(n fleet.Network) gen.Network {
	return gen.Network{Name: n.Name, Type: gen.NetworkType(n.Type), Options: object(n.Options)}
}

// object gives options that are not null in JSON.
func object(options map[string]any) map[string]any {
	if options == nil {
		return map[string]any{}
	}
	return options
}

// run is what v0 shows of an operation: hosts that are done, hosts at work. A host
// that failed stays in inProcess, so that one sees where it stopped.
type run struct {
	name, version     string
	status            gen.RunStatus
	done, inProcess   []string
	started, finished string
}

func newRun(op fleet.Operation, hosts []fleet.HostRun) run {
	r := run{
		name:      op.Cluster,
		version:   op.Version,
		status:    gen.RunStatusInProcess,
		done:      []string{},
		inProcess: []string{},
		// When it was asked for, so that it does not change once a worker begins.
		started:  fleet.FormatTime(op.Created),
		finished: fleet.FormatTime(op.Finished),
	}
	if op.Cluster == "" {
		r.name = op.Host
	}
	switch {
	case op.State == fleet.OperationSucceeded:
		r.status = gen.RunStatusFinished
	case op.State.Ended():
		r.status = gen.RunStatusFailed
	}
	for _, h := range hosts {
		switch h.State {
		case fleet.HostRunSucceeded:
			r.done = append(r.done, h.Address)
		case fleet.HostRunStaging, fleet.HostRunStaged, fleet.HostRunRunning, fleet.HostRunFailed:
			r.inProcess = append(r.inProcess, h.Address)
		}
	}
	return r
}

func (r run) restart() gen.ClusterRestart {
	return gen.ClusterRestart{Name: r.name, Status: r.status, Restarted: r.done, InProcess: r.inProcess, StartedAt: r.started, FinishedAt: r.finished}
}

func (r run) upgrade() gen.ClusterUpgrade {
	return gen.ClusterUpgrade{Name: r.name, Status: r.status, Upgraded: r.done, InProcess: r.inProcess, StartedAt: r.started, FinishedAt: r.finished}
}

func (r run) deploy() gen.ClusterDeploy {
	return gen.ClusterDeploy{Name: r.name, Status: r.status, Version: r.version, Deployed: r.done, InProcess: r.inProcess, StartedAt: r.started, FinishedAt: r.finished}
}

func (r run) bootstrap() gen.HostBootstrap {
	return gen.HostBootstrap{Name: r.name, Status: r.status, Bootstrapped: r.done, InProcess: r.inProcess, StartedAt: r.started, FinishedAt: r.finished}
}
