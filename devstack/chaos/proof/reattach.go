package proof

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/remote/remotetest"
)

// chunk is output as the record got it.
type chunk struct {
	at   time.Time // when it was stored
	last time.Time // when the last line that begins in it was printed, zero for none
	data []byte
}

// measure compares the record with what the commands left on their hosts.
func (b *battered) measure(ctx context.Context, r *OnceResult, o Options) error {
	said, err := b.counters(r)
	if err != nil {
		return err
	}
	r.Commands = len(b.operations)
	if len(said) != r.Commands {
		fmt.Fprintf(o.Out, "once: %d commands left a counter, %d were ordered\n", len(said), r.Commands)
		r.NotOnce += max(len(said)-r.Commands, r.Commands-len(said))
	}
	var lags []time.Duration
	for _, id := range b.operations {
		address, chunks, err := b.output(ctx, id)
		if err != nil {
			return err
		}
		var all []byte
		for _, c := range chunks {
			all = append(all, c.data...)
		}
		first, _, _ := bytes.Cut(all, []byte("\n"))
		key, _ := strings.CutPrefix(string(first), "run ")
		if sha256.Sum256(all) != sha256.Sum256(said[key]) {
			r.Differ++
			fmt.Fprintf(o.Out, "once: operation %s on %s: %d bytes are stored, %d were printed\n", id, address, len(all), len(said[key]))
		}
		lags = append(lags, b.lags(address, chunks)...)
	}
	slices.Sort(lags)
	if r.Samples = len(lags); r.Samples > 0 {
		r.Reattach = lags[(len(lags)*99+99)/100-1]
		fmt.Fprintf(o.Out, "once: %d blows, attached again %d times: median %s, 99th percentile %s, longest %s\n", len(b.blows), len(lags),
			lags[len(lags)/2].Round(time.Millisecond), r.Reattach.Round(time.Millisecond), lags[len(lags)-1].Round(time.Millisecond))
	}
	return nil
}

// output gives the output of an operation's command as it was stored.
func (b *battered) output(ctx context.Context, id string) (address string, chunks []chunk, err error) {
	rows, err := b.DB.Query(ctx, `SELECT s.address, o.at, o.data FROM step s JOIN output o ON o.step_id = s.id
		WHERE s.operation_id = $1::uuid AND s.name = 'prepare' ORDER BY o.position`, id)
	if err != nil {
		return "", nil, err
	}
	var c chunk
	_, err = pgx.ForEachRow(rows, []any{&address, &c.at, &c.data}, func() error {
		c.data = bytes.Clone(c.data)
		c.last = lastPrinted(c.data)
		chunks = append(chunks, c)
		return nil
	})
	return address, chunks, err
}

// lastPrinted is the time in the last whole line of a chunk.
func lastPrinted(data []byte) (t time.Time) {
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) != 3 || len(words[1]) != len("1234567890123456789") {
			continue
		}
		if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
			t = time.Unix(0, n)
		}
	}
	return t
}

// lags are how long it took after blows until the output of a command came again.
// A command that had ended, or was hit again meanwhile, tells nothing.
func (b *battered) lags(address string, chunks []chunk) (lags []time.Duration) {
	host := slices.IndexFunc(b.proxies, func(p *remotetest.Proxy) bool { return p.Address() == address })
	var blows []blow
	for _, w := range b.blows {
		if w.host < 0 || w.host == host {
			blows = append(blows, w)
		}
	}
	for i, w := range blows {
		next := slices.IndexFunc(chunks, func(c chunk) bool { return c.last.After(w.over) })
		if next < 1 || chunks[0].at.After(w.over) { // over, or not yet begun
			continue
		}
		back := chunks[next].at
		if i+1 < len(blows) && blows[i+1].over.Before(back) {
			continue
		}
		lag := back.Sub(w.over)
		if w.host < 0 {
			// Temporal gives the steps of the dead worker to another one only then. Those
			// of other workers did not notice.
			if lag -= heartbeat; lag < 0 {
				continue
			}
		}
		lags = append(lags, lag)
	}
	return lags
}
