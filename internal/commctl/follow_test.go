package commctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
)

const testID = exampleID

// operationServer serves one operation. A test says what each request for its
// events is answered.
type operationServer struct {
	*httptest.Server
	mu      sync.Mutex
	op      client.Operation
	hosts   []client.HostRun
	steps   []client.Step
	output  map[string]string // by host/step
	streams []http.HandlerFunc
	last    []string // Last-Event-ID of each request for events
	query   []string // and its query
	polls   int
}

func newOperationServer(t *testing.T, streams ...http.HandlerFunc) *operationServer {
	t.Helper()
	s := &operationServer{streams: streams, output: map[string]string{}, op: client.Operation{
		Id: testID, Kind: "upgrade", Cluster: "web", State: "running", RequestedBy: "alice", CreatedAt: at(0), StartedAt: at(1),
		Progress: &client.Progress{Total: 2, Running: 1, Pending: 1},
	}}
	const path = "/api/v0/operations/" + testID
	answer := func(w http.ResponseWriter, value any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.polls++
		answer(w, s.op)
	})
	mux.HandleFunc("POST /api/v0/cluster/{cluster}/command", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(w, s.op)
	})
	mux.HandleFunc("POST /api/v0/sources/{source}/sync", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(w, s.op)
	})
	mux.HandleFunc("GET "+path+"/hosts", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		page := client.HostRunPage{Hosts: []client.HostRun{}}
		for _, h := range s.hosts {
			if state := r.URL.Query().Get("state"); state == "" || state == h.State {
				page.Hosts = append(page.Hosts, h)
			}
		}
		answer(w, page)
	})
	mux.HandleFunc("GET "+path+"/steps", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		page := client.StepPage{Steps: []client.Step{}}
		for _, step := range s.steps {
			if host := r.URL.Query().Get("host"); host == "" || host == step.Address {
				page.Steps = append(page.Steps, step)
			}
		}
		answer(w, page)
	})
	mux.HandleFunc("GET "+path+"/hosts/{host}/steps/{step}/output", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		text := s.output[r.PathValue("host")+"/"+r.PathValue("step")]
		var from int
		_, _ = fmt.Sscan(r.URL.Query().Get("offset"), &from)
		gap := strings.IndexByte(text, 0) // of what is not kept
		end := len(text)
		switch {
		case gap >= 0 && from < gap:
			end = gap
		case gap >= 0 && from == gap:
			from += len(strings.SplitAfter(text[gap:], "\x00")) - 1
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Output-Offset", fmt.Sprint(from))
		_, _ = io.WriteString(w, text[from:end])
	})
	mux.HandleFunc("GET "+path+"/events", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		n := len(s.last)
		s.last = append(s.last, r.Header.Get("Last-Event-ID"))
		s.query = append(s.query, r.URL.RawQuery)
		next := s.streams[min(n, len(s.streams)-1)]
		s.mu.Unlock()
		next(w, r)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *operationServer) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// stream sends events and ends without a word.
func stream(events ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range events {
			_, _ = io.WriteString(w, e)
			w.(http.Flusher).Flush()
		}
	}
}

func refuse(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"type":"x","title":"Refused","status":%d,"detail":"200 event streams are open already"}`, status)
	}
}

// ev is an event as the server writes it.
func ev(id, name string, e client.Event) string {
	data, _ := json.Marshal(e)
	if id != "" {
		id = "id: " + id + "\n"
	}
	return id + "event: " + name + "\ndata: " + string(data) + "\n\n"
}

var endOfStream = ev("", "end", client.Event{At: at(99)})

// A stream that breaks off is gone on with behind the last event; comments and
// half events are no events.
func TestFollowGoesOn(t *testing.T) {
	t.Parallel()
	whole := ev("1-2", "host", client.Event{At: at(2), Address: "192.0.2.10", State: "succeeded"})
	s := newOperationServer(t,
		stream(":\n\n", ev("1-1", "host", client.Event{At: at(1), Address: "192.0.2.10", State: "running"}), whole[:len(whole)-1]),
		stream("retry: 1\n\n", strings.ReplaceAll(whole, "\n", "\r\n")),
		refuse(http.StatusBadGateway),
		stream(ev("1-3", "operation", client.Event{At: at(3), State: "succeeded"}), endOfStream),
	)
	a := appFor(t, s.URL)
	c, err := a.client()
	require.NoError(t, err)
	var got []string
	f := &follower{client: c, id: testID, host: "192.0.2.10", output: true, event: func(e event) error {
		got = append(got, e.id+" "+e.name+" "+e.State)
		if e.State == "succeeded" && e.name == "host" {
			s.change(func() { s.op.State = "succeeded" })
		}
		return nil
	}}
	require.NoError(t, f.run(t.Context()))
	require.Equal(t, []string{"1-1 host running", "1-2 host succeeded", " operation succeeded"}, got, "the poll told the end")
	require.Equal(t, []string{"", "1-1", "1-2"}, s.last)
	require.Equal(t, "host=192.0.2.10&output=true", s.query[0])
}

// While streams are refused, or not allowed, the operation is asked for; what a poll has told is not
// told again by the stream that follows.
func TestFollowPolls(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			testFollowPolls(t, newOperationServer(t, refuse(status)))
		})
	}
}

func testFollowPolls(t *testing.T, s *operationServer) {
	s.hosts = []client.HostRun{{Address: "192.0.2.10", State: "running", StartedAt: at(1)}, {Address: "192.0.2.11", State: "pending"}}
	a := appFor(t, s.URL)
	c, err := a.client()
	require.NoError(t, err)
	var got []string
	f := &follower{client: c, id: testID, event: func(e event) error {
		got = append(got, e.Address+" "+e.State)
		return nil
	}, polled: func(_ context.Context, op client.Operation) error {
		s.change(func() {
			s.hosts[0].State, s.hosts[0].FinishedAt, s.hosts[1].State = "succeeded", at(5), "running"
			if s.polls > 1 {
				s.hosts[1].State, s.op.State = "failed", "failed"
			}
		})
		return nil
	}}
	require.NoError(t, f.run(t.Context()))
	require.Equal(t, []string{"192.0.2.10 running", "192.0.2.11 pending", " running", "192.0.2.10 succeeded", "192.0.2.11 running", "192.0.2.11 failed", " failed"}, got)

	got = nil
	for _, state := range []string{"pending", "running", "failed"} {
		require.NoError(t, f.handle(event{name: "host", Event: client.Event{Address: "192.0.2.11", State: state}}))
		require.NoError(t, f.handle(event{name: "operation", Event: client.Event{State: state}}))
	}
	require.Empty(t, got)
}

func TestFollowErrors(t *testing.T) {
	t.Parallel()
	mine := errors.New("enough")
	for name, c := range map[string]struct {
		stream http.HandlerFunc
		code   int
		own    bool
	}{
		"not there":          {refuse(http.StatusNotFound), exitNotFound, false},
		"cursor of another":  {refuse(http.StatusBadRequest), exitUsage, false},
		"no JSON":            {stream("event: host\ndata: {\n\n"), exitUsage, false},
		"a line without end": {stream("data: " + strings.Repeat("x", maxEventLine)), exitUsage, false},
		"the follower's own": {stream(ev("1-1", "host", client.Event{})), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newOperationServer(t, c.stream)
			cl, err := appFor(t, s.URL).client()
			require.NoError(t, err)
			err = (&follower{client: cl, id: testID, event: func(event) error { return mine }}).run(t.Context())
			if c.own {
				require.Equal(t, mine, err)
				return
			}
			var known *exitError
			require.ErrorAs(t, err, &known)
			require.Equal(t, c.code, known.code)
			require.Len(t, s.last, 1)
		})
	}
	cl, err := appFor(t, deadEndpoint).client()
	require.NoError(t, err)
	var dead *unreachableError
	require.ErrorAs(t, (&follower{client: cl, id: testID}).run(t.Context()), &dead, "a server that was never there is not waited for")
}

// run runs a command line on a server and gives its exit code.
func (s *operationServer) run(t *testing.T, line string) (*testApp, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := appFor(t, s.URL)
	return a, a.Run(ctx, strings.Fields(line))
}

func TestWaitAndWatch(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) {
		stream(":\n\n")(w, r)
		<-r.Context().Done()
	}
	failed := []string{
		ev("1-1", "host", client.Event{At: at(1), Address: "192.0.2.10", State: "running"}),
		ev("1-2", "step", client.Event{At: at(1), Address: "192.0.2.10", Step: "upgrade", Attempt: 1, State: "running"}),
		ev("1-3", "host", client.Event{At: at(2), Address: "192.0.2.10", State: "failed", Reason: "step upgrade: apt ended with exit code 100"}),
		ev("1-4", "operation", client.Event{At: at(3), State: "failed", Reason: "a host failed"}), endOfStream,
	}
	state := func(name string) func(*client.Operation) {
		return func(o *client.Operation) { o.State = client.OperationState(name) }
	}
	for name, c := range map[string]struct {
		line   string
		op     func(*client.Operation) // before
		stream http.HandlerFunc
		code   int
	}{
		"succeeded":                  {"wait", state("succeeded"), nil, exitOK},
		"failed":                     {"wait --for=succeeded", state("failed"), nil, exitFailed},
		"cancelled":                  {"wait --for=paused", state("cancelled"), nil, exitFailed},
		"failed, as wanted":          {"wait --for=failed", state("failed"), nil, exitOK},
		"ended badly":                {"wait --for=ended", state("cancelled"), nil, exitFailed},
		"ended well":                 {"wait --for=ended", state("succeeded"), nil, exitOK},
		"running":                    {"wait --for=running", nil, nil, exitOK},
		"never paused":               {"wait --for=paused", state("succeeded"), nil, exitConflict},
		"paused":                     {"wait --for=paused", func(o *client.Operation) { o.Paused = true }, nil, exitOK},
		"too long":                   {"wait --timeout 100ms", nil, hang, exitTimeout},
		"too long to watch":          {"operations watch --timeout 5s", nil, hang, exitTimeout}, // it has been seen by then,
		"it fails while waited for":  {"wait", nil, stream(failed...), exitFailed},
		"it fails while watched":     {"operations watch", nil, stream(failed...), exitFailed},
		"it fails while polled":      {"wait", nil, refuse(503), exitFailed},
		"it failed, shown to script": {"operations watch -o name", nil, stream(failed...), exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newOperationServer(t, c.stream)
			if c.op != nil {
				c.op(&s.op)
			}
			if c.stream != nil {
				inner := s.streams[0]
				s.streams[0] = func(w http.ResponseWriter, r *http.Request) {
					if c.code == exitFailed {
						s.change(func() {
							s.op.State, s.op.Reason = "failed", "a host failed"
							s.hosts = []client.HostRun{{Address: "192.0.2.10", State: "failed", Reason: "step upgrade: apt ended with exit code 100"}}
							s.steps = []client.Step{{Address: "192.0.2.10", Name: "upgrade", State: "failed", OutputSize: 7}}
						})
					}
					inner(w, r)
				}
			}
			a, code := s.run(t, c.line+" "+testID)
			require.Equal(t, c.code, code, "%s%s", a.out, a.errs)
			if strings.HasPrefix(c.line, "wait") {
				require.Empty(t, a.out.String())
			}
			golden(t, "watch-"+strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", ""), "exit "+fmt.Sprint(code)+"\n--- out\n"+a.out.String()+"--- err\n"+a.errs.String())
		})
	}
}

// golden compares what was printed with a file of testdata/out.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata/out", name+".txt")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run with -update")
	require.Equal(t, string(want), got, "run with -update and read the diff")
}

// Who is interrupted is told that the operation goes on, and how to see it again.
func TestWatchIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	s := newOperationServer(t, func(w http.ResponseWriter, r *http.Request) {
		stream(ev("1-1", "host", client.Event{At: at(1), Address: "192.0.2.10", State: "running"}))(w, r)
		interrupt()
		<-r.Context().Done()
	})
	a := appFor(t, s.URL)
	require.Equal(t, exitInterrupted, a.Run(ctx, []string{"operations", "watch", testID}))
	require.Contains(t, a.errs.String(), "The operation goes on. To see it again: commctl operations watch "+testID+"\n")
	require.NotContains(t, a.errs.String(), "usage")
}

func TestLogs(t *testing.T) {
	t.Parallel()
	step := func(host, name string, attempt int, size int64) client.Step {
		return client.Step{Address: host, Name: name, Attempt: attempt, State: "succeeded", OutputSize: size}
	}
	s := newOperationServer(t, stream(
		ev("1-1", "output", client.Event{Address: "192.0.2.10", Step: "upgrade", Attempt: 1, Offset: pointer(int64(0)), Length: 8, Text: "first\nse"}),
		ev("1-2", "output", client.Event{Address: "192.0.2.11", Step: "check", Attempt: 1, Offset: pointer(int64(0)), Length: 3, Text: "up\n"}),
	), stream(
		ev("1-3", "output", client.Event{Address: "192.0.2.10", Step: "upgrade", Attempt: 1, Offset: pointer(int64(8)), Length: 5, Text: "cond\n"}),
		ev("1-4", "output", client.Event{Address: "192.0.2.10", Step: "upgrade", Attempt: 1, Offset: pointer(int64(100)), Length: 4, Text: "last"}),
		ev("1-5", "step", client.Event{Address: "192.0.2.10", Step: "upgrade", Attempt: 1, State: "succeeded"}), endOfStream,
	))
	s.steps = []client.Step{step("192.0.2.10", "check", 1, 0), step("192.0.2.10", "upgrade", 1, 17), step("192.0.2.11", "upgrade", 1, 6)}
	s.hosts = []client.HostRun{{Address: "192.0.2.10", State: "running"}, {Address: "192.0.2.11", State: "running"}}
	s.output["192.0.2.10/upgrade"] = "a\r\n\x1b[2Jb\n\x00\x00\x00end"
	s.output["192.0.2.11/upgrade"] = "other\n"
	for line, want := range map[string]string{
		"":                   "192.0.2.10 upgrade | a\n192.0.2.10 upgrade | \uFFFD[2Jb\n192.0.2.10 upgrade | [3 bytes are not kept]\n192.0.2.10 upgrade | end\n192.0.2.11 upgrade | other\n",
		"192.0.2.11 upgrade": "other\n",
		"192.0.2.10 upgrade": "a\r\n\x1b[2Jb\nend",
		"-f":                 "192.0.2.10 upgrade | first\n192.0.2.11 check | up\n192.0.2.10 upgrade | second\n192.0.2.10 upgrade | [87 bytes are not kept]\n192.0.2.10 upgrade | last\n",
	} {
		s.change(func() { s.last = nil })
		a, code := s.run(t, strings.TrimSpace("logs "+testID+" "+line))
		require.Zero(t, code, a.errs.String())
		require.Equal(t, want, a.out.String(), line)
		if line == "192.0.2.10 upgrade" {
			require.Equal(t, "commctl: 3 bytes are not kept here\n", a.errs.String())
		}
	}
	a, code := s.run(t, "logs "+testID+" 192.0.2.10 reboot")
	require.Equal(t, exitNotFound, code)
	require.Contains(t, a.errs.String(), "has no such step")
	for line, want := range map[string]string{"192.0.2.10 reboot": "has no such step", "192.0.2.99": "has no host 192.0.2.99"} {
		s.change(func() { s.last = nil })
		a, code = s.run(t, "logs -f "+testID+" "+line)
		require.Equal(t, exitNotFound, code, line)
		require.Contains(t, a.errs.String(), want)
	}

	s.change(func() { s.streams, s.last, s.op.State = []http.HandlerFunc{refuse(503)}, nil, "succeeded" })
	a, code = s.run(t, "logs -f "+testID)
	require.Zero(t, code, a.errs.String())
	require.Contains(t, a.out.String(), "192.0.2.10 upgrade | end\n", "also without a stream")
}

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte(ev("1-1", "host", client.Event{At: at(1), Address: "192.0.2.10", State: "running"}) + endOfStream))
	f.Add([]byte("id: 7\r\nevent: x\r\ndata: {\r\ndata: }\r\n\r\n:\n\n"))
	f.Add([]byte("data\n\ndata: null\n\n"))
	f.Add([]byte(": \x00\ndata:{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := newProgress(client.Operation{})
		err := readEvents(strings.NewReader(string(text)), func() {}, func(e event) error {
			line := cell(p.apply(e))
			require.Equal(t, line, legible(line))
			require.NotContains(t, line, "\n")
			return nil
		})
		require.Error(t, err)
		for _, l := range p.lines(time.Now(), 10) {
			require.Equal(t, l.text, cell(l.text))
		}
	})
}
