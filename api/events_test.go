package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// streamed is one event as a client of the stream sees it.
type streamed struct {
	id, name string
	data     gen.Event
}

// follower reads an event stream.
type follower struct {
	t     testing.TB
	body  io.ReadCloser
	lines *bufio.Reader
}

// follow opens the event stream of an operation; after is a Last-Event-ID.
func (b *bundle) follow(t testing.TB, url, id, query, after string) *follower {
	t.Helper()
	res, err := b.stream(t, url, id, query, after)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
	return &follower{t, res.Body, bufio.NewReader(res.Body)}
}

// stream asks for the event stream of an operation. The answer ends with the test, or
// after more time than any test takes.
func (b *bundle) stream(t testing.TB, url, id, query, after string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v0/operations/"+id+"/events"+query, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", b.creds)
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	res, err := http.DefaultClient.Do(r)
	if err == nil {
		t.Cleanup(func() { _ = res.Body.Close() })
	}
	return res, err
}

// next gives the next event; ok is false when the stream was cut off.
func (f *follower) next() (e streamed, ok bool) {
	f.t.Helper()
	for {
		line, err := f.lines.ReadString('\n')
		if err != nil {
			return e, false
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			d := json.NewDecoder(strings.NewReader(value))
			d.DisallowUnknownFields()
			require.NoError(f.t, d.Decode(&e.data), value)
		case "":
			if e.name != "" {
				return e, true
			}
		}
	}
}

// rest gives all events up to the end.
func (f *follower) rest() (all []streamed) {
	f.t.Helper()
	for {
		e, ok := f.next()
		require.True(f.t, ok, "the stream was cut off")
		if e.name == "end" {
			_, more := f.next()
			require.False(f.t, more, "nothing follows the end")
			return all
		}
		all = append(all, e)
	}
}

// startSteps puts a restart on record in which each host runs a step.
func (b *bundle) startSteps(t testing.TB, hosts ...string) (op fleet.Operation, steps map[string]fleet.Step) {
	t.Helper()
	b.cluster(t, "c", hosts...)
	b.v0(t, "PUT /cluster/c/restart", `{"policy":{"max_unavailable":"100%"}}`, 201, "")
	op = b.lastStarted()
	require.Len(t, b.claim(t, op.ID, 1).Assignments, len(hosts))
	steps = map[string]fleet.Step{}
	for _, h := range hosts {
		s, err := b.store.BeginStep(t.Context(), op.ID, h, "check", 1)
		require.NoError(t, err)
		steps[h] = s
	}
	return op, steps
}

func (b *bundle) print(t testing.TB, s fleet.Step, offset int64, text string) {
	t.Helper()
	_, err := b.store.AppendOutput(t.Context(), s.ID, offset, []byte(text))
	require.NoError(t, err)
}

func TestEventsLive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op, steps := b.startSteps(t, "h1", "h2")
	f := b.follow(t, b.url, op.ID, "", "")
	wait := func(name string, fits func(gen.Event) bool) streamed {
		t.Helper()
		for {
			e, ok := f.next()
			require.True(t, ok)
			require.NotEmpty(t, e.id)
			require.NotEmpty(t, e.data.At)
			if e.name == name && fits(e.data) {
				return e
			}
		}
	}
	wait("operation", func(e gen.Event) bool { return e.State == "running" })
	wait("host", func(e gen.Event) bool { return e.Address == "h2" && e.State == "running" })
	wait("step", func(e gen.Event) bool { return e.Address == "h2" && e.Step == "check" && e.State == "running" })

	b.print(t, steps["h1"], 0, "a\x1b[31mred\r\n\tü\xff\u202e")
	out := wait("output", func(gen.Event) bool { return true })
	require.Equal(t, "a␛[31mred␍\n\tü��", out.data.Text)
	require.Equal(t, int64(0), *out.data.Offset)
	require.Equal(t, 18, out.data.Length)
	require.Equal(t, 1, out.data.Attempt)
	b.v0(t, "POST /operations/"+op.ID+"/pause", "", 200, "")
	paused := wait("steer", func(gen.Event) bool { return true })
	require.Equal(t, "pause", paused.data.Action)
	require.Equal(t, "alice", paused.data.By)
	code := 3
	_, err := b.store.EndStep(t.Context(), store.StepEnd{StepID: steps["h1"].ID, State: fleet.StepFailed, ExitCode: &code, Reason: "exit code 3", OutputSize: 18})
	require.NoError(t, err)
	ended := wait("step", func(e gen.Event) bool { return e.State == "failed" })
	require.Equal(t, 3, *ended.data.ExitCode)
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "exit code 3", Event: fleet.HostBroke})
	wait("host", func(e gen.Event) bool { return e.State == "failed" && e.Reason == "exit code 3" })
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "a host failed"))
	f.rest()

	// Later, from the start or from anywhere, by host, without output.
	all := b.follow(t, b.url, op.ID, "", "").rest()
	require.Equal(t, all[5:], b.follow(t, b.url, op.ID, "", all[4].id).rest())
	require.Equal(t, all[5:], b.follow(t, b.url, op.ID, "?after="+all[4].id, "").rest())
	require.Equal(t, all[7:], b.follow(t, b.url, op.ID, "?after="+all[4].id, all[6].id).rest(), "the header counts")
	for _, e := range b.follow(t, b.url, op.ID, "?host=h2&output=true", "").rest() {
		require.NotEqual(t, "h1", e.data.Address)
	}
	for _, e := range b.follow(t, b.url, op.ID, "?output=false", "").rest() {
		require.NotEqual(t, "output", e.name)
	}
	b.longAgo(t, op.ID)
	require.Empty(t, b.follow(t, b.url, op.ID, "", all[len(all)-1].id).rest(), "only the end")
}

// longAgo moves an operation into the past, where nothing of it is still open.
func (b *bundle) longAgo(t testing.TB, id string) {
	t.Helper()
	b.exec(t, `UPDATE operation SET created = created - interval '1 hour', started = started - interval '1 hour', finished = finished - interval '1 hour' WHERE id = $1`, id)
}

// TestEventsEndAfterThoseThatAreHidden behind a transaction that is open for long.
func TestEventsEndAfterThoseThatAreHidden(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op, _ := b.startSteps(t, "h1")
	conn, err := pgx.Connect(t.Context(), b.dsn)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	old, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = old.Exec(t.Context(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "a host failed"))
	b.longAgo(t, op.ID)

	f := b.follow(t, b.url, op.ID, "?output=false", "")
	for { // what comes before that transaction
		e, ok := f.next()
		require.True(t, ok)
		require.NotEqual(t, "end", e.name)
		if e.name == "step" {
			break
		}
	}
	// Nothing happens that could be waited for: the stream looks in vain, and must not
	// take that for the end.
	time.Sleep(3 * lookAgain)
	require.NoError(t, old.Commit(t.Context()))
	var states []string
	for _, e := range f.rest() {
		states = append(states, e.name+" "+e.data.State)
	}
	require.Contains(t, states, "operation failed")
}

func TestEventsOfAnUnknownOperationOrFromNowhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /operations/019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d/events", "", 404, "")
	b.addHost(t, "h", "")
	url := "/operations/" + b.lastStarted().ID + "/events"
	for query, blame := range map[string]string{
		"?after=x": "after", "?after=1": "after", "?after=-1-1": "after", "?after=99999999999999999999-1": "after", "?output=1": "output", "?host=a:b": "host", "?x=1": "x",
	} {
		a := b.v0(t, "GET "+url+query, "", 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), query)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/api/v0"+url, nil)
	require.NoError(t, err)
	require.Equal(t, 403, b.send(t, r).status)
	r.Header.Set("Authorization", b.creds)
	r.Header.Set("Last-Event-ID", "99999999999999999999-1")
	require.Equal(t, []string{"Last-Event-ID"}, blamed(t, b.send(t, r)))
}

// TestEventsResumeWithoutGapOrRepeat: while several hosts print, a follower is cut
// off a hundred times and goes on where it was. In the end it has seen what one who
// reads everything in one go sees, and the output that it pieced together by offset
// is, byte for byte, what was printed.
func TestEventsResumeWithoutGapOrRepeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hosts := []string{"h1", "h2", "h3", "h4"}
	op, steps := b.startSteps(t, hosts...)
	printed := map[string]string{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, h := range hosts {
		all.Go(func() {
			random := rand.New(rand.NewPCG(2026, uint64(i)))
			var offset int64
			var text strings.Builder
			for n := range 300 {
				line := fmt.Sprintf("%s line %d %s\n", h, n, strings.Repeat("x", random.IntN(50)))
				_, err := b.store.AppendOutput(t.Context(), steps[h].ID, offset, []byte(line))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				offset += int64(len(line))
				text.WriteString(line)
			}
			mu.Lock()
			defer mu.Unlock()
			printed[h] = text.String()
		})
	}
	random := rand.New(rand.NewPCG(2026, 11))
	var seen []streamed
	last := ""
	const cuts = 100
	for range cuts {
		f := b.follow(t, b.url, op.ID, "", last)
		for range 1 + random.IntN(10) {
			e, ok := f.next()
			require.True(t, ok)
			seen = append(seen, e)
			last = e.id
		}
		require.NoError(t, f.body.Close())
	}
	all.Wait()
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationSucceeded, ""))
	seen = append(seen, b.follow(t, b.url, op.ID, "", last).rest()...)

	require.Equal(t, b.follow(t, b.url, op.ID, "", "").rest(), seen)
	ids := map[string]bool{}
	output := map[string]*strings.Builder{}
	for _, e := range seen {
		require.False(t, ids[e.id], "event %s came twice", e.id)
		ids[e.id] = true
		if e.name != "output" {
			continue
		}
		if output[e.data.Address] == nil {
			output[e.data.Address] = &strings.Builder{}
		}
		require.EqualValues(t, output[e.data.Address].Len(), *e.data.Offset)
		require.Len(t, e.data.Text, e.data.Length)
		output[e.data.Address].WriteString(e.data.Text)
	}
	for _, h := range hosts {
		require.Equal(t, printed[h], output[h].String())
		a := b.do(t, "GET", "/api/v0/operations/"+op.ID+"/hosts/"+h+"/steps/check/output?limit=1048576", "")
		require.Equal(t, printed[h], a.body)
	}
}

// TestEventsOutliveTheTimeoutsOfTheServer, which are for short answers, and hold until the
// stream begins: where that takes a busy machine too long, longer ones are tried.
func TestEventsOutliveTheTimeoutsOfTheServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op, steps := b.startSteps(t, "h1")
	var printed int64
	for timeout := 300 * time.Millisecond; !b.outlives(t, op.ID, steps["h1"], &printed, timeout); timeout *= 10 {
		require.Less(t, timeout, 30*time.Second, "the stream was cut off")
	}
}

// outlives says whether an event stream goes on for more than twice the timeouts of a
// server, to whose end it looks then. printed is how much the step has printed.
func (b *bundle) outlives(t *testing.T, operation string, s fleet.Step, printed *int64, timeout time.Duration) bool {
	t.Helper()
	server := NewHTTPServer("", b.server.Handler, discard)
	server.ReadTimeout, server.WriteTimeout = timeout, timeout
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	res, err := b.stream(t, "http://"+listener.Addr().String(), operation, "", "")
	if err != nil || res.StatusCode != http.StatusOK {
		return false
	}
	f := &follower{t, res.Body, bufio.NewReader(res.Body)}
	begin := time.Now()
	for range 10 {
		b.print(t, s, *printed, "x")
		for {
			e, ok := f.next()
			if !ok {
				t.Logf("cut off after %s with timeouts of %s", time.Since(begin), timeout)
				return false
			}
			if e.name == "output" && *e.data.Offset == *printed {
				break
			}
		}
		*printed++
		time.Sleep(timeout / 4) // the time itself is what is tested
	}
	require.Greater(t, time.Since(begin), 2*timeout)

	// And it ends when the server stops, which waits for nobody.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, server.Shutdown(ctx))
	_, ok := f.next()
	require.False(t, ok)
	return true
}

// TestStreamHasNoDeadline: the time limit of requests is not that of a stream.
func TestStreamHasNoDeadline(t *testing.T) {
	t.Parallel()
	limit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, limited := r.Context().Deadline()
		require.True(t, limited)
		_, limited = callOf(r.Context()).unlimited.Deadline()
		require.False(t, limited)
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(context.WithValue(t.Context(), callKey{}, &call{}), http.MethodGet, "/", nil))
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op, _ := b.startSteps(t, "h1")
	var open []*follower
	for range maxStreams {
		open = append(open, b.follow(t, b.url, op.ID, "", ""))
	}
	a := b.v0(t, "GET /operations/"+op.ID+"/events", "", 503, "")
	require.Contains(t, a.body, strconv.Itoa(maxStreams))
	require.NoError(t, open[0].body.Close())
	require.Eventually(t, func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/api/v0/operations/"+op.ID+"/events", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", b.creds)
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		return res.StatusCode == 200
	}, time.Minute, 10*time.Millisecond, "a place is free again")
	for _, f := range open[1:] {
		require.NoError(t, f.body.Close())
	}
}

// TestSlowFollowerIsCutOff: one who does not read holds a place for a while, not
// for ever.
func TestSlowFollowerIsCutOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op, steps := b.startSteps(t, "h1")
	chunk := strings.Repeat("x", 256<<10)
	for n := range 64 { // more than both ends of a connection buffer
		b.print(t, steps["h1"], int64(n*len(chunk)), chunk)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err = fmt.Fprintf(conn, "GET /api/v0/operations/%s/events HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", op.ID, b.creds)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Contains(b.log.String(), `"operation":"streamOperationEvents"`) },
		slowClient+2*time.Minute, 100*time.Millisecond, "the request goes on")
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	out := &eventWriter{w: deadlines{w}, control: http.NewResponseController(deadlines{w}), wrote: time.Now()}
	require.NoError(t, out.heartbeat())
	require.Empty(t, w.Body.String(), "not while it is busy")
	out.wrote = time.Now().Add(-heartbeatEvery)
	require.Zero(t, out.silence())
	require.NoError(t, out.heartbeat())
	require.Equal(t, ":\n\n", w.Body.String())
	require.Greater(t, out.silence(), heartbeatEvery/2)
}

// deadlines gives a recorder the deadlines that a connection has.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetWriteDeadline(time.Time) error { return nil }

func FuzzLegible(f *testing.F) {
	for _, seed := range []string{"", "a\nb\tc", "\x1b]0;title\a", "\xff\xfe", "\u0085\u2028\u202e\u200b", "ü😀", "\x00\x7f\u009b31m"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, printed []byte) {
		text := legible(printed)
		for _, r := range text {
			require.True(t, r == '\n' || r == '\t' || unicode.IsGraphic(r), "%q", r)
		}
		require.Equal(t, text, legible([]byte(text)), "what is legible stays so")
	})
}
