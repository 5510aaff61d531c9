package activities

import (
	"context"
	"fmt"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/internal/store"
)

const (
	// stopTries is how long a host may be out of reach whose command is to end.
	stopTries = 15 * time.Second
	// stopsWithin is how long one that is in reach has: for TERM, for KILL, twice, and to
	// send the rest of the output.
	stopsWithin = cancelGrace + 20*time.Second
)

// commandStop is where the end of a command on one host stands.
type commandStop struct {
	host *commandHost
	why  string // it is to end
	over bool   // nothing of it runs there any more
}

// stop ends the command on a host and puts on record how it ended. One that was never
// started never will be. A host that does not say in time how it ended has failed.
func (p *commandPage) stop(ctx context.Context, s *commandStop) error {
	h := s.host
	if h.Failed != "" {
		p.record.end(h, commandFailed(h.Again, h.Failed))
		return nil
	}
	patience := min(p.in.Unreachable, stopTries)
	within := patience + stopsWithin
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var t trouble
	for {
		tried := wallClock()
		out, err := p.tryStop(limited, s)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			p.record.end(h, s.end(out))
			return nil
		case limited.Err() == nil && remote.KindOf(err) == "":
			return err
		}
		reason := ""
		if limited.Err() == nil {
			reason = t.over(err, tried, patience, true)
		}
		if reason == "" && (limited.Err() != nil || !t.wait(limited)) {
			reason = fmt.Sprintf("no answer within %s", within)
			if s.over { // and the answer waited for us, perhaps
				reason = fmt.Sprintf("its answer was not on record within %s", within)
			}
		}
		if reason != "" && ctx.Err() == nil {
			p.record.end(h, s.unknown(reason))
			return nil
		}
	}
}

// tryStop ends the command over a connection of its own. What was done by the try before
// is not done again.
func (p *commandPage) tryStop(ctx context.Context, s *commandStop) (out remote.Outcome, err error) {
	conn, err := p.ssh.Dial(ctx, s.host.target())
	if err != nil {
		return out, err
	}
	defer func() { _ = conn.Close() }()
	key := p.key(s.host)
	if !s.over {
		if err := conn.Cancel(ctx, key, cancelGrace); err != nil {
			return out, err
		}
		s.over = true
	}
	return conn.Attach(ctx, key, remote.Limits{Head: fleet.OutputHead}, p.record.position(s.host), commandSink{ctx, p.record, s.host})
}

// end is the end of the host by how its command ended. Whether that was before it was told
// to is for the host to say: who told it may be gone.
func (s *commandStop) end(out remote.Outcome) store.CommandWrite {
	if out.State == remote.Exited && !out.Told {
		return commandEnded(s.host, out)
	}
	w := withTail(out)
	if w.End = fleet.HostRunFailed; out.State == remote.Cancelled {
		w.End = fleet.HostRunSkipped
	}
	return because(w, stopped(s.why, out, s.host.last.of(out)))
}

// unknown is the end of a host that did not say how its command ended.
func (s *commandStop) unknown(reason string) store.CommandWrite {
	if s.over {
		reason = s.why + "; its command does not run there any more, but how it ended is not known: " + reason
		return store.CommandWrite{End: fleet.HostRunFailed, State: fleet.StepIndeterminate, Reason: reason}
	}
	return commandFailed(true, s.why+"; the host could not be told to end it: "+reason)
}
