package temporal

import (
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"

	"commissaire/devstack/loopback"
)

// ports are where the parts of one server listen.
type ports struct {
	frontend, history, matching, worker int
	ui                                  int
}

// choosePorts checks first what would end the whole process later: server and
// UI do that when a port is taken.
func choosePorts(o Options) (ports, error) {
	p := ports{frontend: o.Port, ui: o.UIPort}
	return p, loopback.Choose(
		loopback.Wanted{Port: &p.frontend, What: "the Temporal frontend"},
		loopback.Wanted{Port: &p.history, What: "Temporal's history service"},
		loopback.Wanted{Port: &p.matching, What: "Temporal's matching service"},
		loopback.Wanted{Port: &p.worker, What: "Temporal's worker service"},
		loopback.Wanted{Port: &p.ui, What: "the Temporal web UI"},
	)
}

func (p ports) services() map[primitives.ServiceName]int {
	return map[primitives.ServiceName]int{
		primitives.FrontendService: p.frontend,
		primitives.HistoryService:  p.history,
		primitives.MatchingService: p.matching,
		primitives.WorkerService:   p.worker,
	}
}

func (p ports) hosts() map[primitives.ServiceName]static.Hosts {
	out := map[primitives.ServiceName]static.Hosts{}
	for name, port := range p.services() {
		out[name] = static.SingleLocalHost(loopback.Address(port))
	}
	return out
}
