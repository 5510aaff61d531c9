package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/activity"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// WatchStore is what watching needs of the store, for one tenant.
type WatchStore interface {
	WatchPages(ctx context.Context, cluster string, hosts, most int) (bounds []string, err error)
	HostsToCheck(ctx context.Context, cluster, after, upTo string, facts time.Duration) (hosts []store.HostToCheck, sealed int, err error)
	RecordChecks(ctx context.Context, checks []store.Checked, failures int) (store.WatchRecorded, error)
}

// checksAtOnce is how many hosts one worker checks at a time, in all pages. Most of a check
// is waiting.
const checksAtOnce = 256

const (
	// checkLimit bounds a check: to connect, to log in and to answer.
	checkLimit = 10 * time.Second
	// checkWait bounds the waits of a login for others, which say nothing about the host.
	checkWait = 30 * time.Second
)

// Watch is the steps that look at hosts between operations. They keep no connection, and
// use none of those that operations have.
type Watch struct {
	store func(tenant string) WatchStore
	seen  func(fleet.WatchState, time.Duration)
	ssh   *remote.Dialer
	slots *shares
}

// NewWatch makes them. seen, if any, is told of each check and how long it took.
func NewWatch(store func(tenant string) WatchStore, seen func(fleet.WatchState, time.Duration)) *Watch {
	if seen == nil {
		seen = func(fleet.WatchState, time.Duration) {}
	}
	return &Watch{
		store: store, seen: seen, slots: newShares(checksAtOnce),
		// The time of a check does not run while its login waits for a turn.
		ssh: remote.NewDialer(remote.Options{DialTimeout: checkLimit, HandshakeTimeout: checkLimit, LoginTimeout: checkLimit, RequestTimeout: checkLimit, MaxHandshakes: checksAtOnce}),
	}
}

// Plan cuts the hosts into pages. Repeating it only reads.
func (a *Watch) Plan(ctx context.Context, in workflows.WatchInput) (workflows.WatchPlan, error) {
	bounds, err := a.store(in.Tenant).WatchPages(ctx, in.Cluster, workflows.WatchPageHosts, workflows.WatchPages)
	return workflows.WatchPlan{Bounds: bounds}, err
}

// Page checks the hosts of a page, and writes down what it found. It changes nothing on
// them, so repeating it is safe; what a forerunner found later is kept.
func (a *Watch) Page(ctx context.Context, in workflows.WatchPageInput) (counts workflows.WatchCounts, err error) {
	ctx, stop := alive(ctx)
	defer stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
	}()
	hosts, sealed, err := a.store(in.Tenant).HostsToCheck(ctx, in.Cluster, in.After, in.UpTo, in.Facts)
	if err != nil {
		return counts, err
	}
	if sealed > 0 {
		activity.GetLogger(ctx).Warn("hosts cannot be watched: their credentials cannot be opened with the keys of this worker", "hosts", sealed, "cluster", in.Cluster)
	}
	counts.Unknown = sealed
	read, slots := time.Now(), a.slots.join()
	defer slots.leave()
	for len(hosts) > 0 {
		n := min(len(hosts), workflows.WatchPageHosts)
		checks := a.checkAll(ctx, in, hosts[:n], read, slots)
		if ctx.Err() != nil {
			return counts, ctx.Err()
		}
		done, err := a.store(in.Tenant).RecordChecks(ctx, checks, in.Failures)
		if err != nil {
			return counts, err
		}
		count(&counts, checks)
		counts.Unknown += n - len(checks)
		counts.Overtaken += len(checks) - done.Written
		counts.Lost += done.Lost
		counts.Found += done.Found
		hosts = hosts[n:]
	}
	return counts, nil
}

func count(counts *workflows.WatchCounts, checks []store.Checked) {
	for _, c := range checks {
		switch c.State {
		case fleet.WatchHealthy:
			counts.Healthy++
		case fleet.WatchSlow:
			counts.Slow++
		case fleet.WatchUnreachable:
			counts.Unreachable++
		case fleet.WatchAuthRefused:
			counts.AuthRefused++
		case fleet.WatchKeyChanged:
			counts.KeyChanged++
		case fleet.WatchRebooting:
			counts.Rebooting++
		}
	}
}

// alive heartbeats until stop is called, with what the next attempt is to know. The context
// ends with the activity's, and when the worker stops or slept for so long that it was given
// up: another one begins anew.
func alive(ctx context.Context, details ...any) (_ context.Context, stop func()) {
	work, cancel := context.WithCancelCause(ctx)
	limit := activity.GetInfo(ctx).HeartbeatTimeout
	beat := time.NewTicker(limit/4 + time.Millisecond)
	var beating sync.WaitGroup
	beating.Go(func() {
		defer beat.Stop()
		for {
			last := wallClock()
			activity.RecordHeartbeat(ctx, details...)
			select {
			case <-beat.C:
			case <-activity.GetWorkerStopChannel(ctx):
				cancel(errStopping)
				return
			case <-work.Done():
				return
			}
			if limit > 0 && wallClock().Sub(last) > limit {
				cancel(errLate)
				return
			}
		}
	})
	return work, func() { cancel(nil); beating.Wait() }
}

// checkAll checks hosts, which were read then, beside each other. Those that could not be
// checked for reasons of ours are left out.
func (a *Watch) checkAll(ctx context.Context, in workflows.WatchPageInput, hosts []store.HostToCheck, read time.Time, slots *share) []store.Checked {
	found := make([]*store.Checked, len(hosts))
	var checking sync.WaitGroup
	for i, h := range hosts {
		if slots.take(ctx) != nil {
			break
		}
		checking.Go(func() {
			defer slots.give()
			begun := time.Now()
			c, ok := a.check(ctx, h, in.Slow)
			if !ok {
				return
			}
			c.At = h.Read.Add(begun.Sub(read))
			found[i] = &c
		})
	}
	checking.Wait()
	checks := make([]store.Checked, 0, len(hosts))
	for _, c := range found {
		if c != nil {
			checks = append(checks, *c)
		}
	}
	return checks
}

// check looks at one host. ok is false when it says nothing about the host.
func (a *Watch) check(ctx context.Context, h store.HostToCheck, slow time.Duration) (c store.Checked, ok bool) {
	begun := time.Now()
	c.Host = h
	pulse, took, err := a.ask(ctx, &c)
	switch {
	case ctx.Err() != nil || ours(err):
		return c, false
	case errors.Is(err, errNoAnswer):
		c.State, c.Reason = fleet.WatchUnreachable, err.Error()
	case err != nil:
		c.State, c.Reason = whatFailed(err)
	case pulse.Moving != "":
		c.State, c.Reason = fleet.WatchRebooting, "its system is "+pulse.Moving
	case took > slow:
		c.State, c.Reason = fleet.WatchSlow, fmt.Sprintf("it took %s to answer", took.Round(100*time.Millisecond))
	default:
		c.State = fleet.WatchHealthy
	}
	a.seen(c.State, time.Since(begun))
	return c, true
}

// errNoAnswer is that of a host which lets us in and then does not answer in time.
var errNoAnswer = fmt.Errorf("no answer within %s", checkLimit)

// ask logs in and reads the pulse of a host, which takes so long without the login's
// waits, and then its facts when they are old or the host is in another boot. Where these
// cannot be read, what is known stands.
func (a *Watch) ask(ctx context.Context, c *store.Checked) (pulse hostos.Pulse, took time.Duration, err error) {
	h := c.Host
	dialing, cancel := context.WithTimeoutCause(ctx, checkWait+checkLimit, remote.ErrNoTurn)
	defer cancel()
	conn, err := a.ssh.Dial(dialing, remote.Target{Address: h.Address, Port: h.Port, User: h.Creds.RemoteUser, Key: h.Creds.PrivateKey, HostKey: h.HostKey, Via: via(h.Bastion)})
	if err != nil {
		return pulse, 0, err
	}
	defer conn.Close()
	begun := time.Now()
	ctx, end := context.WithTimeoutCause(ctx, checkLimit-conn.LoginTook(), errNoAnswer)
	defer end()
	said, err := conn.Script(ctx, hostos.PulseScript)
	if err != nil {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = errNoAnswer
		}
		return pulse, 0, err
	}
	if pulse, err = hostos.ParsePulse(string(said.Stdout)); err != nil {
		return pulse, 0, err
	}
	c.BootID, took = pulse.BootID, conn.LoginTook()+time.Since(begun)
	if pulse.Moving != "" || !h.Facts && pulse.BootID == h.BootID {
		return pulse, took, nil
	}
	if said, err := conn.Script(ctx, hostos.FactsScript); err == nil {
		if facts, err := hostos.ParseFacts(string(said.Stdout)); err == nil && facts.BootID == pulse.BootID {
			c.Facts = &facts
		}
	}
	return pulse, took, nil
}

// Close ends the connections to bastions.
func (a *Watch) Close() { a.ssh.Close() }

// ours says whether a check failed for want of something on this machine.
func ours(err error) bool {
	for _, e := range []error{remote.ErrNoTurn, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// whatFailed says what an error means. What answers and is of no use, without a shell for
// example, is as good as not there.
func whatFailed(err error) (fleet.WatchState, string) {
	reason := err.Error()
	var e *remote.Error
	if errors.As(err, &e) {
		reason = e.Err.Error()
	}
	state := fleet.WatchUnreachable
	switch remote.KindOf(err) {
	case remote.HostKeyChanged:
		state = fleet.WatchKeyChanged
	case remote.AuthRefused, remote.SudoRefused, remote.BadKey:
		state = fleet.WatchAuthRefused
	}
	return state, printable(reason)
}
