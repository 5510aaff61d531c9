package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/authn"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

var discard = slog.New(slog.DiscardHandler)

// bundle is a whole API over a database of its own. Only the dispatcher, behind
// which Temporal would be, is not the real one.
type bundle struct {
	url        string
	dsn        string
	store      *store.Store
	dispatcher *recordingDispatcher
	log        *syncBuffer
	doc        *openapi3.T
	creds      string // Authorization header
	server     *http.Server
}

// recordingDispatcher notes what it is told.
type recordingDispatcher struct {
	mu                 sync.Mutex
	down               error
	unreached          error // of a cancel
	started, cancelled []fleet.Operation
	woken              []fleet.Operation
	check              func(name, check string) error // what a worker says of a container manager; nil for nothing wrong
	read               func(address string) error     // has a worker put a node on record; nil for no worker
	diagnose           diagnose                       // what a worker says of nodes; nil for no worker
}

type diagnose func(cluster string, addresses []string, d fleet.Drain) (map[string]fleet.HostDiagnosis, string, error)

func (d *recordingDispatcher) Diagnose(_ context.Context, _, cluster string, addresses []string, drain fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.diagnose == nil {
		return nil, "no worker", nil
	}
	return d.diagnose(cluster, addresses, drain)
}

func (d *recordingDispatcher) CheckManager(_ context.Context, _, name, check string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.check == nil {
		return nil
	}
	return d.check(name, check)
}

func (d *recordingDispatcher) ReadNode(_ context.Context, _, address string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.read == nil {
		return fleet.Errorf(fleet.Unavailable, "no worker")
	}
	return d.read(address)
}

func (d *recordingDispatcher) Ready(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.down
}

func (d *recordingDispatcher) Start(_ context.Context, op fleet.Operation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started = append(d.started, op)
}

func (d *recordingDispatcher) Cancel(_ context.Context, op fleet.Operation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unreached != nil {
		return d.unreached
	}
	d.cancelled = append(d.cancelled, op)
	return nil
}

func (d *recordingDispatcher) Wake(_ context.Context, op fleet.Operation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.woken = append(d.woken, op)
}

func (d *recordingDispatcher) setDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = err
}

func (d *recordingDispatcher) setUnreached(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unreached = err
}

func (d *recordingDispatcher) starts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.started)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newTestLogger(to io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

var userHash = sync.OnceValues(func() ([]byte, error) {
	return bcrypt.GenerateFromPassword([]byte("pw:with:colons"), bcrypt.MinCost)
})

// sharedDocument is read once for all tests: with the race detector it takes longer than
// most of them.
var sharedDocument = sync.OnceValues(func() (*openapi3.T, error) { return openapi3.NewLoader().LoadFromData(document) })

// basicCreds is the Authorization header of one of the users.
func basicCreds(user string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":pw:with:colons"))
}

// setup makes an API; changes are made to what it works with.
func setup(t testing.TB, changes ...func(*Deps)) *bundle {
	t.Helper()
	return setupOn(t, pgtest.New(t), changes...)
}

func setupOn(t testing.TB, dsn string, changes ...func(*Deps)) *bundle {
	t.Helper()
	keyFile := filepath.Join(t.TempDir(), "key")
	require.NoError(t, secret.CreateKeyFile(keyFile))
	sealer, err := secret.OpenKeyFile(keyFile)
	require.NoError(t, err)
	db, err := store.Open(context.Background(), dsn, sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	hash, err := userHash()
	require.NoError(t, err)

	b := &bundle{
		dsn:        dsn,
		store:      db.For(fleet.DefaultTenant),
		dispatcher: &recordingDispatcher{},
		log:        &syncBuffer{},
		creds:      basicCreds("alice"),
	}
	b.doc, err = sharedDocument()
	require.NoError(t, err)
	logger := newTestLogger(b.log)
	basic := authn.NewBasic(authn.BasicOptions{Users: map[string]authn.User{
		"alice": {Hash: string(hash)}, // as in old files: an admin
		"olga":  {Hash: string(hash), Role: fleet.RoleOperator},
		"vera":  {Hash: string(hash), Role: fleet.RoleViewer},
	}}, logger)
	server := httptest.NewUnstartedServer(nil)
	deps := Deps{
		Store:      b.store,
		Changes:    db.Changes,
		Dispatcher: b.dispatcher,
		Authn:      authn.NewChain(logger, basic, authn.NewAPIToken(b.store)),
		Logger:     logger,
		Metrics:    prometheus.NewRegistry(),
		Version:    Version{Version: "1.2.3", Commit: "abc", Built: "2026-11-20T00:00:00Z", Go: "go1.26"},
		Readiness:  []Check{{"postgres", db.Ping}, {"temporal", b.dispatcher.Ready}},
		Sources:    []fleet.Source{{Name: "cmdb", Type: "http-json", Refresh: time.Hour}, {Name: "files", Type: "ansible"}},
	}
	for _, change := range changes {
		change(&deps)
	}
	server.Config = NewHTTPServer("", New(deps), logger)
	b.server = server.Config
	server.Start()
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// as is the same API with other credentials, the value of the Authorization header.
func (b *bundle) as(creds string) *bundle {
	other := *b
	other.creds = creds
	return &other
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request as the clients of 2017 do: Basic, no content type.
func (b *bundle) do(t testing.TB, method, path, body string) answer {
	t.Helper()
	return b.send(t, b.request(t, method, path, body))
}

func (b *bundle) request(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, reader)
	require.NoError(t, err)
	r.Header.Set("Authorization", b.creds)
	return r
}

// httpClient follows no redirects. It reads the answer also when the server, which waits
// half a second for the rest of a body that it refuses, has hung up meanwhile.
var httpClient = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return talker{conn}, err
	}},
}

// talker is a connection whose other end may have hung up before all was said.
type talker struct{ net.Conn }

func (c talker) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return len(p), nil
	}
	return n, err
}

// send sends a request and checks that the answer is one of the document.
func (b *bundle) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	res, err := httpClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	a := answer{res.StatusCode, res.Header, string(body)}
	b.conforms(t, r, a)
	return a
}

// v0 sends a request under /api/v0, wants a status, and a JSON body unless want
// is empty.
func (b *bundle) v0(t testing.TB, request, body string, status int, want string) answer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	a := b.do(t, method, "/api/v0"+path, body)
	// The store waits a few seconds for Postgres, which a busy machine may take.
	for try := 1; try < 5 && a.status == 503 && status != 503 && strings.Contains(a.body, "the database does not answer; try again"); try++ {
		a = b.do(t, method, "/api/v0"+path, body)
	}
	require.Equal(t, status, a.status, "%s %s: %s", request, body, a.body)
	if want != "" {
		require.JSONEq(t, want, a.body, request)
	}
	return a
}

func (b *bundle) conforms(t testing.TB, r *http.Request, a answer) {
	t.Helper()
	where := r.Method + " " + r.URL.Path + ": " + a.body
	require.NotEmpty(t, a.header.Get(RequestIDHeader), where)
	if a.status >= 400 && !strings.HasPrefix(a.body, `{"status":"not_ready"`) && r.Method != http.MethodHead {
		require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), where)
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		require.NoError(t, json.Unmarshal([]byte(a.body), &p), where)
		require.Equal(t, a.status, p.Status, where)
		require.NotEmpty(t, p.Type, where)
		require.NotEmpty(t, p.Title, where)
		require.NotEmpty(t, p.Detail, where)
		wait := a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests
		require.Equal(t, wait, a.header.Get("Retry-After") != "", where)
		return
	}
	op := b.operationOf(r)
	if op == nil {
		return
	}
	response := op.Responses.Status(a.status)
	require.NotNil(t, response, "status %d is not in the document: %s", a.status, where)
	isText := response.Value.Content["text/plain"] != nil && strings.HasPrefix(a.header.Get("Content-Type"), "text/plain")
	if content := response.Value.Content["application/json"]; content != nil && !isText {
		require.Equal(t, "application/json", a.header.Get("Content-Type"), where)
		var value any
		require.NoError(t, json.Unmarshal([]byte(a.body), &value), where)
		require.NoError(t, content.Schema.Value.VisitJSON(value, openapi3.VisitAsResponse()), where)
	}
}

var templateParam = regexp.MustCompile(`\\\{[a-z]+\\\}`)

func (b *bundle) operationOf(r *http.Request) *openapi3.Operation {
	for path, item := range b.doc.Paths.Map() {
		pattern := "^" + templateParam.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "/?$"
		if regexp.MustCompile(pattern).MatchString(r.URL.Path) {
			if op := item.Operations()[r.Method]; op != nil {
				return op
			}
		}
	}
	return nil
}

// rows counts the rows of every table but the audit log, so that a test can say
// "nothing was stored".
func (b *bundle) rows(t testing.TB) map[string]int {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, b.dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	names, err := conn.Query(ctx, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables 
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'audit'`)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(names, pgx.RowTo[string])
	require.NoError(t, err)
	counts := map[string]int{}
	for _, table := range tables {
		var n int
		require.NoError(t, conn.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n))
		counts[table] = n
	}
	return counts
}

// exec changes the database behind the API's back.
func (b *bundle) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.dsn)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// keyPEM makes a private key; passphrase "" leaves it open.
func keyPEM(t testing.TB, passphrase string) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	require.NoError(t, err)
	return pem.EncodeToMemory(block)
}

// key64 is a fresh private key as clients send it.
func key64(t testing.TB) string {
	return base64.StdEncoding.EncodeToString(keyPEM(t, ""))
}

// publicKey makes a host key as authorized_keys has it.
func publicKey(t testing.TB) (line, fingerprint string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), ssh.FingerprintSHA256(key)
}

// addHost puts a host; its bootstrap is accepted and has not begun.
func (b *bundle) addHost(t testing.TB, address, cluster string) {
	t.Helper()
	body := `{"ssh_priv_key":"` + key64(t) + `"`
	if cluster != "" {
		body += `,"cluster":"` + cluster + `"`
	}
	b.v0(t, "PUT /host/"+address, body+"}", 201, "")
}

// endBootstrap does what the worker does: the latest bootstrap of a host ends.
func (b *bundle) endBootstrap(t testing.TB, address string, state fleet.HostRunState) {
	t.Helper()
	ctx := t.Context()
	op, err := b.store.LatestOperation(ctx, fleet.KindBootstrap, "", address)
	require.NoError(t, err)
	_, err = b.store.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	_, err = b.store.BeginHostRun(ctx, op.ID, address)
	require.NoError(t, err)
	if state == fleet.HostRunFailed {
		b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: address, State: state, Reason: "sshd did not answer", Event: fleet.HostBroke})
		require.NoError(t, b.store.EndOperation(ctx, op.ID, fleet.OperationFailed, "sshd did not answer"))
		return
	}
	require.NoError(t, b.store.RecordFacts(ctx, op.ID, address, fleet.Facts{
		OS: "fedora", OSVersion: "43", CPUs: 4, Memory: 7820, Space: 53687091200, BootID: "5f4dcc3b-5aa7-45d6-9d83-27deb882cf99",
	}))
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: address, State: state, Event: fleet.HostPrepared})
	require.NoError(t, b.store.EndOperation(ctx, op.ID, fleet.OperationSucceeded, ""))
}

func (b *bundle) endHostRun(t testing.TB, end store.HostRunEnd) {
	t.Helper()
	_, err := b.store.EndHostRun(t.Context(), end)
	require.NoError(t, err)
}

// readyHost adds a host and lets its bootstrap succeed.
func (b *bundle) readyHost(t testing.TB, address, cluster string) {
	t.Helper()
	b.addHost(t, address, cluster)
	b.endBootstrap(t, address, fleet.HostRunSucceeded)
}

// makeActive makes a host what only a container manager makes it.
func (b *bundle) makeActive(t testing.TB, address string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.dsn)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), "UPDATE host SET state = 'active' WHERE address = $1", address)
	require.NoError(t, err)
}

// field gives one member of a JSON answer.
func field(t testing.TB, a answer, name string) any {
	t.Helper()
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &object), a.body)
	return object[name]
}

// entries gives what is in an answer that is a list.
func entries(t testing.TB, a answer) (list []any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(a.body), &list), a.body)
	return list
}

// blamed gives the fields that a problem names.
func blamed(t testing.TB, a answer) []string {
	t.Helper()
	var p struct{ Errors []fleet.FieldError }
	require.NoError(t, json.Unmarshal([]byte(a.body), &p), a.body)
	var fields []string
	for _, e := range p.Errors {
		fields = append(fields, e.Field)
	}
	return fields
}
