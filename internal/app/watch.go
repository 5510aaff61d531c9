package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"commissaire/api"
	"commissaire/internal/fleet"
)

// part is something that the server needs and that runs elsewhere.
type part struct {
	api.Check
	title   string // "Temporal"
	without string // what does not work while it does not answer
}

// watchEvery is how often the server looks whether its parts answer.
const watchEvery = 5 * time.Second

// watch says in the log when a part does not answer, and when it does again: once
// for each change, with the error that came first. It looks at once, then every so
// often, until ctx ends. up says the same to who reads metrics.
func watch(ctx context.Context, parts []part, every time.Duration, up *prometheus.GaugeVec, log *slog.Logger) {
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() { p.watch(ctx, every, up, log) })
	}
	all.Wait()
}

func (p part) watch(ctx context.Context, every time.Duration, up *prometheus.GaugeVec, log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for said := ""; ; {
		try, cancel := context.WithTimeout(ctx, readyTimeout)
		err := p.Run(try)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			up.WithLabelValues(p.Name).Set(1)
		} else {
			up.WithLabelValues(p.Name).Set(0)
		}
		if now := trouble(err); now != said {
			said = now
			if err != nil {
				log.WarnContext(ctx, p.title+" "+now+": "+p.without, "check", p.Name, "error", err)
			} else {
				log.InfoContext(ctx, p.title+" answers again", "check", p.Name)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// trouble says in a few words what is wrong, "" when nothing is.
func trouble(err error) string {
	switch {
	case err == nil:
		return ""
	case fleet.KindOf(err) == fleet.Unavailable:
		return "does not answer"
	}
	return "answers but cannot be used"
}
