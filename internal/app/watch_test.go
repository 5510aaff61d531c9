package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api"
	"commissaire/internal/config"
	"commissaire/internal/privatepg"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// lines gives what the log holds about a check, as "LEVEL text".
func (l *logs) lines(check string) (lines []string) {
	for line := range strings.Lines(l.String()) {
		var entry struct{ Level, Msg, Check string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Check == check {
			lines = append(lines, entry.Level+" "+entry.Msg)
		}
	}
	return lines
}

// watched runs watch over a database, and counts how often it has looked. A look that
// took longer than it may, as on a busy machine, tells nothing of the database.
func watched(t *testing.T, dsn string) (log *logs, looked *atomic.Int64) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(key))
	sealer, err := secret.OpenKeyFile(key)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), dsn, sealer)
	require.NoError(t, err)
	log, looked = &logs{}, &atomic.Int64{}
	check := api.Check{Name: "postgres", Run: func(ctx context.Context) error {
		defer looked.Add(1)
		for {
			if err := db.CheckSchema(context.WithoutCancel(ctx)); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		watch(ctx, []part{{check, "Postgres", "nothing works"}}, 10*time.Millisecond, newUp(), slog.New(slog.NewJSONHandler(log, nil)))
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		db.Close()
	})
	return log, looked
}

// TestWatch: each change of a part is told once, however long it lasts.
func TestWatch(t *testing.T) {
	t.Parallel()
	pg := pgtest.NewCluster(t)
	log, looked := watched(t, pg.DSN)
	again := func() {
		t.Helper()
		enough := looked.Load() + 5
		require.Eventually(t, func() bool { return looked.Load() >= enough }, 2*time.Minute, 10*time.Millisecond)
	}
	again()
	require.Empty(t, log.lines("postgres"), "nothing is told of what answers")
	down, up := "WARN Postgres does not answer: nothing works", "INFO Postgres answers again"
	pg.Down(t, privatepg.Fast)
	again()
	require.Equal(t, []string{down}, log.lines("postgres"))
	pg.Up(t)
	again()
	pg.Down(t, privatepg.Immediate)
	again()
	require.Equal(t, []string{down, up, down}, log.lines("postgres"))
}

func TestWatchTellsThatTheSchemaIsMissing(t *testing.T) {
	t.Parallel()
	log, looked := watched(t, pgtest.Empty(t))
	require.Eventually(t, func() bool { return looked.Load() >= 5 }, 2*time.Minute, 10*time.Millisecond)
	require.Equal(t, []string{"WARN Postgres answers but cannot be used: nothing works"}, log.lines("postgres"))
	require.Contains(t, log.String(), "run: commissaire migrate")
}

// TestServerTellsWhatIsAway: without a request.
func TestServerTellsWhatIsAway(t *testing.T) {
	t.Parallel()
	s := serveAPI(t, func(*config.Config) {}) // there is no Temporal
	require.Eventually(t, func() bool { return len(s.log.lines("temporal")) > 0 }, 2*time.Minute, 10*time.Millisecond)
	require.Equal(t, []string{"WARN Temporal does not answer: reading works, but adding hosts and starting operations is refused with 503"}, s.log.lines("temporal"))
	// Of Postgres it tells nothing, or that it answers after all, where the machine is busy.
	require.Eventually(t, func() bool {
		told := s.log.lines("postgres")
		return len(told) == 0 || told[len(told)-1] == "INFO Postgres answers again"
	}, 2*time.Minute, 10*time.Millisecond)
}
