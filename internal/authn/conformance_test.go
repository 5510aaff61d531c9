package authn

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authn/authntest"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// The conformance suite: the same cases for every plug-in. A plug-in that is listed
// in Plugins and has no subject here fails it.

// show makes a request.
type show func(t *testing.T) *http.Request

// subject is a plug-in with what the suite must know about it.
type subject struct {
	plugin Authenticator
	want   Principal
	secret string // what may not be in any error
	good   show   // the same credential each time
	bad    map[string]show
	// no gives the cases of mustRefuse that the plug-in cannot have, and why.
	no map[string]string
	// revoke makes the good credential no good where it comes from.
	revoke func(t *testing.T)
	// remembers is how long the plug-in may go on believing it.
	remembers time.Duration
	pass      func(time.Duration) // moves the clock of the plug-in
	server    *authntest.Server   // that the plug-in asks, nil when it asks none
	breakDown func()              // what the plug-in needs goes away, nil when that is server or nothing
}

// mustRefuse are the cases that every plug-in has in bad or in no.
var mustRefuse = []string{"wrong secret", "unknown", "expired", "not yet valid", "other audience", "algorithm none"}

const (
	noTimes     = "it has no times"
	noAudience  = "it has no audience"
	noAlgorithm = "it names no algorithm"
)

var subjects = map[string]func(t *testing.T) subject{
	"httpbasicauth": func(t *testing.T) subject {
		file := filepath.Join(t.TempDir(), "users.json")
		write(t, file, `{"alice":{"hash":"`+hashOf(t, "long secret", "$2b$")+`"}}`)
		b := build(t, "httpbasicauth", nil, map[string]any{"filepath": file}).(*Basic)
		now := time.Now()
		b.now = func() time.Time { return now }
		return subject{
			plugin: b,
			want:   Principal{Name: "alice", Role: fleet.RoleAdmin},
			secret: "long secret",
			good:   withBasic("alice:long secret"),
			bad: map[string]show{
				"wrong secret": withBasic("alice:x"), "unknown": withBasic("bob:long secret"), "no secret": withBasic("alice:"),
				"other case": withBasic("Alice:long secret"), "anonymous of the old client": withBasic("None:None"),
			},
			no:     map[string]string{"expired": noTimes, "not yet valid": noTimes, "other audience": noAudience, "algorithm none": noAlgorithm},
			revoke: func(t *testing.T) { write(t, file, `{}`) },
			pass:   func(d time.Duration) { now = now.Add(d) },
		}
	},
	"httpauthclientcert": func(t *testing.T) subject {
		c := build(t, "httpauthclientcert", nil, map[string]any{"cn": "alice"}).(*clientCert)
		now := time.Now()
		c.now = func() time.Time { return now }
		ca := newAuthority(t)
		alice := ca.issue(t, "alice")
		// A connection outlives the certificate: the handshake was a good one.
		later := func(d time.Duration) show {
			return func(t *testing.T) *http.Request {
				now = now.Add(d)
				t.Cleanup(func() { now = now.Add(-d) })
				return ca.shake(t, alice)
			}
		}
		return subject{
			plugin: c,
			want:   Principal{Name: "alice", Role: fleet.RoleAdmin},
			good:   ca.shown(alice),
			bad: map[string]show{
				"unknown": ca.shown(ca.issue(t, "bob")), "no name": ca.shown(ca.issue(t)), "other case": ca.shown(ca.issue(t, "Alice")),
				"expired": later(2 * time.Hour), "not yet valid": later(-2 * time.Hour),
			},
			no: map[string]string{
				"wrong secret": "the handshake proves the key", "other audience": "the handshake wants clientAuth", "algorithm none": noAlgorithm,
			},
		}
	},
	"keystonepasswordauth": func(t *testing.T) subject {
		k := authntest.NewKeystone(t)
		k.SetPassword("Default", "alice", "long secret")
		k.SetPassword("Other", "bob", "long secret")
		s := outsider(t, &k.Server, "keystonepasswordauth", map[string]any{"url": k.URL})
		s.want = Principal{Name: "alice", Role: fleet.RoleAdmin}
		s.secret = "long secret"
		s.good = withBasic("alice:long secret")
		s.bad = map[string]show{
			"wrong secret": withBasic("alice:x"), "unknown": withBasic("carol:long secret"), "no secret": withBasic("alice:"),
			"other audience": withBasic("bob:long secret"), "not UTF-8": withBasic("alice:\xff\xfe"), "NUL": withBasic("alice:\x00"),
		}
		s.no = map[string]string{"expired": noTimes, "not yet valid": noTimes, "algorithm none": noAlgorithm}
		s.revoke = func(*testing.T) { k.DeleteUser("Default", "alice") }
		return s
	},
	"keystonetokenauth": func(t *testing.T) subject {
		k := authntest.NewKeystone(t)
		token := k.Token("Default", "alice", time.Now().Add(time.Hour))
		s := outsider(t, &k.Server, "keystonetokenauth", map[string]any{"url": k.URL + "/v3/"})
		s.want = Principal{Name: "alice", Role: fleet.RoleAdmin}
		s.secret = token
		s.good = withAuthToken(token)
		s.bad = map[string]show{
			"wrong secret": withAuthToken(token + "x"), "unknown": withAuthToken("unknown"), "not ASCII": withAuthToken("gÄÄÄ"),
			"expired": withAuthToken(k.Token("Default", "alice", time.Now())),
		}
		s.no = map[string]string{"not yet valid": "Keystone has no such tokens", "other audience": noAudience, "algorithm none": noAlgorithm}
		s.revoke = func(*testing.T) { k.Revoke(token) }
		return s
	},
	"kubernetesbearertokenauth": func(t *testing.T) subject {
		return cluster(t, "kubernetesbearertokenauth", func(url string) map[string]any { return map[string]any{"server-url": url} })
	},
	"openshiftbearertokenauth": func(t *testing.T) subject {
		return cluster(t, "openshiftbearertokenauth", func(url string) map[string]any {
			return map[string]any{"openshift_endpoint": url + "/api/v1/namespaces"}
		})
	},
	"oidc": func(t *testing.T) subject {
		i := authntest.NewIssuer(t)
		token := i.Token(t, nil)
		s := outsider(t, &i.Server, "oidc", map[string]any{"issuer": i.URL, "client_id": "commissaire"})
		s.want = Principal{Name: "alice", Role: fleet.RoleViewer}
		s.secret = token
		s.good = withBearer(token)
		hour := func(n int) int64 { return time.Now().Add(time.Duration(n) * time.Hour).Unix() }
		with := func(claim string, value any) show { return withBearer(i.Token(t, map[string]any{claim: value})) }
		s.bad = map[string]show{
			"wrong secret": withBearer(i.TokenOfOthers(t)), "algorithm none": withBearer(i.Unsigned(t)), "algorithm HS256": withBearer(i.TokenByPublicKey(t)),
			"unknown": with("iss", "https://elsewhere.example"), "other audience": with("aud", "another"), "no audience": with("aud", nil),
			"expired": with("exp", hour(-1)), "without end": with("exp", nil), "not yet valid": with("nbf", hour(1)),
			"no name": with("sub", nil), "name of another kind": with("sub", []string{"alice"}),
			"cut":         withBearer(token[:len(token)-10]),
			"other claim": withBearer(strings.Replace(token, ".", ".e30", 1)),
			"three dots":  withBearer("a.b.c"),
		}
		s.no = map[string]string{}
		// An issuer revokes by no longer standing by the key.
		s.revoke = func(t *testing.T) {
			i.AddKey(t, "ES256")
			i.DropOldKeys()
		}
		s.remembers = keysFor
		return s
	},
	"apitoken": func(t *testing.T) subject {
		db, tokens := openStore(t)
		add := func(life time.Duration) (fleet.Token, string) {
			id, text, digest := NewToken(APITokenPrefix)
			stored, err := tokens.CreateToken(t.Context(), fleet.Token{
				ID: id, Name: "test", Owner: "alice", Role: fleet.RoleOperator, Operations: []string{"listHosts"}, Expires: time.Now().Add(life),
			}, digest)
			require.NoError(t, err)
			return stored, string(text.Reveal())
		}
		stored, text := add(time.Hour)
		_, expired := add(-time.Second)
		_, unknown, _ := NewToken(APITokenPrefix)
		last := "A"
		if strings.HasSuffix(text, last) {
			last = "Q"
		}
		return subject{
			plugin: build(t, "apitoken", tokens, nil),
			want:   Principal{Name: "alice", Role: fleet.RoleOperator, Operations: []string{"listHosts"}, TokenID: stored.ID},
			secret: text,
			good:   withBearer(text),
			bad: map[string]show{
				"wrong secret": withBearer(text[:len(text)-1] + last), "unknown": withBearer(string(unknown.Reveal())),
				"expired": withBearer(expired), "as a join token": withBearer(strings.Replace(text, APITokenPrefix, JoinTokenPrefix, 1)),
			},
			no:        map[string]string{"not yet valid": "tokens begin when they are made", "other audience": noAudience, "algorithm none": noAlgorithm},
			revoke:    func(t *testing.T) { require.NoError(t, tokens.RevokeToken(t.Context(), stored.ID)) },
			breakDown: db.Close,
		}
	},
}

// outsider is the subject of a plug-in that asks a server.
func outsider(t *testing.T, server *authntest.Server, name string, options map[string]any) subject {
	t.Helper()
	o := build(t, name, nil, options).(*outside)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	o.now = clock
	if openID, ok := o.provider.(openID); ok {
		openID.issuer.now = clock
	}
	return subject{plugin: o, server: server, remembers: VerifiedFor, pass: func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}}
}

// cluster is the subject of a plug-in that asks Kubernetes or OpenShift.
func cluster(t *testing.T, name string, options func(url string) map[string]any) subject {
	t.Helper()
	k := authntest.NewKubernetes(t)
	hour := time.Now().Add(time.Hour)
	k.AddToken("alices-token", "alice", true, hour)
	k.AddToken("bobs-token", "bob", false, hour)
	k.AddToken("old-token", "alice", true, time.Now())
	s := outsider(t, &k.Server, name, options(k.URL))
	s.want = Principal{Name: "alice", Role: fleet.RoleViewer}
	s.secret = "alices-token"
	s.good = withBearer("alices-token")
	s.bad = map[string]show{
		"wrong secret": withBearer("alices-tokem"), "unknown": withBearer("unknown"), "expired": withBearer("old-token"), "not allowed": withBearer("bobs-token"),
	}
	s.no = map[string]string{
		"not yet valid": "the server looks at the token", "other audience": "the server looks at the token", "algorithm none": "the server looks at the token",
	}
	s.revoke = func(*testing.T) { k.Revoke("alices-token") }
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, p := range Plugins() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			start := subjects[p.Name]
			require.NotNil(t, start, "the plug-in has no subject in the suite")
			t.Run("lets in", func(t *testing.T) { t.Parallel(); letsIn(t, start(t)) })
			t.Run("refuses", func(t *testing.T) { t.Parallel(); refuses(t, start(t)) })
			t.Run("leaves alone", func(t *testing.T) { t.Parallel(); leavesAlone(t, start(t)) })
			t.Run("refuses what is replayed", func(t *testing.T) { t.Parallel(); refusesReplays(t, start(t)) })
			t.Run("many at once", func(t *testing.T) { t.Parallel(); manyAtOnce(t, start(t)) })
			t.Run("breaks down", func(t *testing.T) { t.Parallel(); breaksDown(t, start) })
		})
	}
}

func letsIn(t *testing.T, s subject) {
	for range 2 {
		who, err := s.plugin.Authenticate(t.Context(), s.good(t))
		require.NoError(t, err)
		require.Equal(t, s.want, who)
	}
	if m, ok := s.plugin.(rememberer); ok {
		require.True(t, m.remembers(s.good(t)))
		require.False(t, m.remembers(get(t)))
		for name, bad := range s.bad {
			require.False(t, m.remembers(bad(t)), name)
		}
	}
	if s.server != nil {
		asked := s.server.Requests()
		_, err := s.plugin.Authenticate(t.Context(), s.good(t))
		require.NoError(t, err)
		require.Equal(t, asked, s.server.Requests(), "it is remembered for a short time")
		s.pass(VerifiedFor)
		_, err = s.plugin.Authenticate(t.Context(), s.good(t))
		require.NoError(t, err)
		if _, signed := s.plugin.(*outside).provider.(openID); !signed {
			require.Greater(t, s.server.Requests(), asked, "and no longer")
		}
	}
}

func refuses(t *testing.T, s subject) {
	for _, name := range mustRefuse {
		_, ok := s.bad[name]
		require.True(t, ok || s.no[name] != "", "there is no case %q, nor a reason why not", name)
	}
	for name, bad := range s.bad {
		t.Run(name, func(t *testing.T) {
			who, err := s.plugin.Authenticate(t.Context(), bad(t))
			require.ErrorIs(t, err, ErrDenied)
			require.NotErrorIs(t, err, errAbsent, "it shows something, which counts as a guess")
			require.Zero(t, who)
		})
	}
	who, err := s.plugin.Authenticate(t.Context(), s.good(t))
	require.NoError(t, err, "the good one is as good as before")
	require.Equal(t, s.want, who)
}

// leavesAlone shows what is for other plug-ins, and what is for nobody.
func leavesAlone(t *testing.T, s subject) {
	long := strings.Repeat("a", 1<<20)
	_, api, _ := NewToken(APITokenPrefix)
	_, join, _ := NewToken(JoinTokenPrefix)
	requests := map[string]*http.Request{
		"no header":            get(t),
		"empty headers":        get(t, "Authorization", "", "X-Auth-Token", ""),
		"scheme only":          get(t, "Authorization", "Bearer"),
		"other scheme only":    get(t, "Authorization", "Basic "),
		"another scheme":       get(t, "Authorization", `Digest username="alice"`),
		"1 MB of nothing":      get(t, "Authorization", long),
		"1 MB of Basic":        get(t, "Authorization", "Basic "+long),
		"1 MB of credentials":  withBasic("alice:" + long)(t),
		"1 MB of Bearer":       get(t, "Authorization", "Bearer "+long),
		"1 MB of JWT":          get(t, "Authorization", "Bearer "+long+".e30."+long),
		"1 MB of X-Auth-Token": get(t, "X-Auth-Token", long),
		"spaces in a token":    get(t, "Authorization", "Bearer a b"),
		"line in a token":      get(t, "Authorization", "Bearer a\r\nX: y"),
		"token in the query":   httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?access_token=alices-token", nil),
	}
	if s.server != nil { // what is ours goes to nobody
		requests["API token"] = withBearer(string(api.Reveal()))(t)
		requests["join token"] = withBearer(string(join.Reveal()))(t)
		requests["API token as a password"] = withBasic("alice:" + string(api.Reveal()))(t)
		requests["API token elsewhere"] = withAuthToken(string(api.Reveal()))(t)
		requests["API token that is cut"] = withBearer(string(api.Reveal())[:30])(t)
	}
	for name, r := range requests {
		begin := time.Now()
		_, err := s.plugin.Authenticate(t.Context(), r)
		require.ErrorIs(t, err, errAbsent, name)
		require.Less(t, time.Since(begin), 30*time.Second, name)
	}
	if s.server != nil {
		require.Zero(t, s.server.Requests())
	}
}

func refusesReplays(t *testing.T, s subject) {
	if s.revoke == nil {
		t.Skip("revoked certificates are the handshake's")
	}
	_, err := s.plugin.Authenticate(t.Context(), s.good(t))
	require.NoError(t, err)
	s.revoke(t)
	if s.remembers > 0 {
		s.pass(s.remembers)
	}
	_, err = s.plugin.Authenticate(t.Context(), s.good(t))
	require.ErrorIs(t, err, ErrDenied)
}

func manyAtOnce(t *testing.T, s subject) {
	var all sync.WaitGroup
	bads := slices.Collect(func(yield func(show) bool) {
		for _, bad := range s.bad {
			if s.plugin.Name() != "httpauthclientcert" && !yield(bad) { // its cases move a clock
				return
			}
		}
	})
	for n := range 40 {
		good := s.good(t)
		all.Go(func() {
			who, err := s.plugin.Authenticate(t.Context(), good)
			if err != nil || who.Name != s.want.Name {
				t.Errorf("a good one among many is refused: %v", err)
			}
		})
		if len(bads) > 0 {
			bad := bads[n%len(bads)](t)
			all.Go(func() {
				if who, err := s.plugin.Authenticate(t.Context(), bad); err == nil {
					t.Errorf("a bad one among many is let in as %s", who.Name)
				}
			})
		}
	}
	all.Wait()
}

// breaksDown looks at a plug-in while what it needs does not work: it lets nobody in,
// does not take the time of others, and says nothing of what it was shown. The chain
// blames nobody for it, and the plug-in works again when the rest does.
func breaksDown(t *testing.T, start func(t *testing.T) subject) {
	s := start(t)
	if s.breakDown != nil {
		s.breakDown()
		whileBroken(t, s)
	}
	if s.server == nil {
		return
	}
	for _, fault := range authntest.Faults {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.server.Break(fault)
			if fault == authntest.Slow || fault == authntest.Trickling {
				s.plugin.(*outside).timeout = 200 * time.Millisecond
			}
			_, err := s.plugin.Authenticate(t.Context(), s.good(t))
			require.Error(t, err)
			require.Less(t, s.server.Sent(), 32<<20, "no more is read than is of use, and what sockets hold")
			whileBroken(t, s)
			require.Zero(t, s.server.Followed(), "no redirection is followed")

			s.server.Break(authntest.None)
			s.plugin.(*outside).timeout = patience
			s.pass(keysEvery)
			who, err := s.plugin.Authenticate(t.Context(), s.good(t))
			require.NoError(t, err, "it works again without a restart")
			require.Equal(t, s.want, who)
		})
	}
}

func whileBroken(t *testing.T, s subject) {
	t.Helper()
	begin := time.Now()
	_, err := s.plugin.Authenticate(t.Context(), s.good(t))
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrDenied, "this is no fault of the caller")
	require.NotContains(t, err.Error(), s.secret)
	require.Less(t, len(err.Error()), 1000)
	require.Less(t, time.Since(begin), 30*time.Second)

	var log syncBuffer
	c := NewChain(slog.New(slog.NewTextHandler(&log, nil)), s.plugin)
	var all sync.WaitGroup
	for range 2 * maxFailures {
		r := s.good(t)
		all.Go(func() {
			_, err := c.Authenticate(t.Context(), r)
			if throttled := (*Throttled)(nil); !errors.Is(err, ErrUnavailable) || errors.As(err, &throttled) {
				t.Errorf("the caller is refused without being to blame, but: %v", err)
			}
		})
	}
	all.Wait()
	require.Contains(t, log.String(), "does not work")
	require.NotContains(t, log.String(), s.secret)
}

// build makes a plug-in as the configuration does.
func build(t *testing.T, name string, tokens Tokens, options map[string]any) Authenticator {
	t.Helper()
	a, err := buildOne(t.Context(), Spec{Name: name, Options: options}, tokens, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	if o, ok := a.(*outside); ok {
		o.timeout = patience
	}
	return a
}

// patience is how long a plug-in waits in a test for who answers: on a busy machine that
// takes longer than defaultTimeout.
const patience = time.Minute

// openStore gives a store on a database of its own.
func openStore(t *testing.T) (*store.DB, *store.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(path))
	sealer, err := secret.OpenKeyFile(path)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), pgtest.New(t), sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db, db.For(fleet.DefaultTenant)
}

func get(t *testing.T, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v0/hosts", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func withBasic(credentials string) show {
	return func(t *testing.T) *http.Request { return get(t, "Authorization", basicHeader(credentials)) }
}

func withBearer(token string) show {
	return func(t *testing.T) *http.Request { return get(t, "Authorization", "Bearer "+token) }
}

func withAuthToken(token string) show {
	return func(t *testing.T) *http.Request { return get(t, "X-Auth-Token", token) }
}

// syncBuffer is a log that many may write.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
