package authn

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// hashOf makes a cheap hash with one of the three prefixes in use.
func hashOf(t testing.TB, password, prefix string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return prefix + string(hash[4:])
}

type bundle struct {
	basic *Basic
	log   *bytes.Buffer
	runs  atomic.Int64 // bcrypt runs
}

func setup(t *testing.T, o BasicOptions) *bundle {
	t.Helper()
	b := &bundle{log: &bytes.Buffer{}}
	b.basic = NewBasic(o, slog.New(slog.NewTextHandler(b.log, nil)))
	b.basic.compare = func(hash, password []byte) error {
		b.runs.Add(1)
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return b
}

func (b *bundle) try(t *testing.T, header string) (Principal, error) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return b.basic.Authenticate(t.Context(), r)
}

func basicHeader(credentials string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func TestBasic(t *testing.T) {
	t.Parallel()
	b := setup(t, BasicOptions{Users: map[string]User{
		"a":     {Hash: hashOf(t, "a", "$2a$")},
		"bob":   {Hash: hashOf(t, "p:q:r", "$2b$")},
		"carol": {Hash: hashOf(t, "ünï", "$2y$")},
	}})
	for name, test := range map[string]struct {
		header string
		user   string // "" when refused
	}{
		"right":                     {basicHeader("a:a"), "a"},
		"again, from the cache":     {basicHeader("a:a"), "a"},
		"scheme in small letters":   {"basic " + basicHeader("a:a")[6:], "a"},
		"scheme in capitals":        {"BASIC " + basicHeader("a:a")[6:], "a"},
		"spaces around":             {"Basic   " + basicHeader("a:a")[6:] + " ", "a"},
		"colons in the password":    {basicHeader("bob:p:q:r"), "bob"},
		"$2y$ and UTF-8":            {basicHeader("carol:ünï"), "carol"},
		"wrong password":            {basicHeader("a:b"), ""},
		"empty password":            {basicHeader("a:"), ""},
		"unknown user":              {basicHeader("x:a"), ""},
		"anonymous of the old CLI":  {basicHeader("None:None"), ""},
		"empty user":                {basicHeader(":a"), ""},
		"no colon":                  {basicHeader("a"), ""},
		"not base64":                {"Basic !!!", ""},
		"no credentials":            {"Basic", ""},
		"empty credentials":         {"Basic ", ""},
		"no header":                 {"", ""},
		"other scheme":              {"Bearer abc", ""},
		"longer than bcrypt reads":  {basicHeader("a:" + strings.Repeat("a", 100)), ""},
		"longer than anybody needs": {basicHeader("a:" + strings.Repeat("a", 10_000)), ""},
		"NUL":                       {basicHeader("a:a\x00"), ""},
		"URL-safe alphabet":         {"Basic " + base64.URLEncoding.EncodeToString([]byte("a:\xff\xfe\xfd")), ""},
	} {
		who, err := b.try(t, test.header)
		if test.user == "" {
			require.ErrorIs(t, err, ErrDenied, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.user, who.Name, name)
	}
	require.Empty(t, b.log.String(), "no credential and nothing else is logged")
}

func TestBasicRemembersVerifiedPasswords(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.json")
	write(t, file, `{"a":{"hash":"`+hashOf(t, "one", "$2b$")+`"}}`)
	b := setup(t, BasicOptions{File: file})
	now := time.Now()
	b.basic.now = func() time.Time { return now }
	expect := func(credentials string, ok bool, runs int64, why string) {
		t.Helper()
		before := b.runs.Load()
		_, err := b.try(t, basicHeader(credentials))
		require.Equal(t, ok, err == nil, why)
		require.Equal(t, runs, b.runs.Load()-before, why)
	}
	expect("a:one", true, 1, "the first time costs bcrypt")
	expect("a:one", true, 0, "then it is remembered")
	expect("a:two", false, 1, "a wrong password is never remembered")
	expect("a:two", false, 1, "not the second time either")
	expect("a:one", true, 0, "and does not push out the right one")
	expect("x:one", false, 1, "an unknown user costs the same as a wrong password")
	now = now.Add(VerifiedFor)
	expect("a:one", true, 1, "it is forgotten after a time")
	write(t, file, `{"a":{"hash":"`+hashOf(t, "two", "$2b$")+`"}}`)
	expect("a:one", false, 1, "another hash makes it worthless")
	expect("a:two", true, 1, "the new password works at once")
	write(t, file, `{"b":{"hash":"`+hashOf(t, "one", "$2b$")+`"}}`)
	expect("a:two", false, 1, "a user that is gone is refused")
	expect("b:one", true, 1, "a new one is let in")
	require.Len(t, b.basic.verified, 1, "the cache holds users that exist only")
}

func TestUnknownUsersCostAsMuchAsTheCostliestHash(t *testing.T) {
	t.Parallel()
	costly, err := bcrypt.GenerateFromPassword([]byte("x"), 6)
	require.NoError(t, err)
	set := makeSet(map[string]User{"a": {Hash: hashOf(t, "a", "$2a$")}, "b": {Hash: string(costly)}})
	hash, known := set.hash("nobody")
	require.False(t, known)
	cost, err := bcrypt.Cost([]byte(hash))
	require.NoError(t, err)
	require.Equal(t, 6, cost)
	require.ErrorIs(t, bcrypt.CompareHashAndPassword([]byte(hash), []byte("")), bcrypt.ErrMismatchedHashAndPassword,
		"the dummy is a hash that bcrypt runs on, not one it refuses at a glance")
}

func TestUsersFile(t *testing.T) {
	t.Parallel()
	good := hashOf(t, "pw", "$2b$")
	for name, test := range map[string]struct {
		text string
		warn string // "" when the user a is let in
	}{
		"good":            {`{"a":{"hash":"` + good + `"}}`, ""},
		"not JSON":        {`{"a":`, "not of the form"},
		"with a role":     {`{"a":{"hash":"` + good + `","role":"viewer"}}`, ""},
		"no such role":    {`{"a":{"hash":"` + good + `","role":"x"}}`, "the role must be"},
		"other member":    {`{"a":{"hash":"` + good + `","rule":"x"}}`, "not of the form"},
		"list":            {`[]`, "not of the form"},
		"text after":      {`{"a":{"hash":"` + good + `"}} x`, "more text"},
		"no hash":         {`{"a":{}}`, "not bcrypt"},
		"clear text":      {`{"a":{"hash":"pw"}}`, "not bcrypt"},
		"one bad entry":   {`{"a":{"hash":"` + good + `"},"b":{"hash":"x"}}`, "not bcrypt"},
		"cost of a month": {`{"a":{"hash":"$2b$31$` + good[7:] + `"}}`, "too long"},
		"colon in a name": {`{"a:b":{"hash":"` + good + `"}}`, "colon"},
		"empty":           {``, "not of the form"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "users.json")
			write(t, file, test.text)
			b := setup(t, BasicOptions{File: file, Users: map[string]User{"inline": {Hash: good}}})
			_, err := b.try(t, basicHeader("a:pw"))
			_, inline := b.try(t, basicHeader("inline:pw"))
			if test.warn == "" {
				require.NoError(t, err)
				require.NoError(t, inline)
				return
			}
			require.ErrorIs(t, err, ErrDenied)
			require.ErrorIs(t, inline, ErrDenied, "a broken file refuses everybody")
			require.Contains(t, b.log.String(), test.warn)
			require.Equal(t, 1, strings.Count(b.log.String(), "WARN"), "it warns once, not with each request")
			require.NotContains(t, b.log.String(), good[7:], "no hash is logged")
			write(t, file, `{"a":{"hash":"`+good+`"}}`)
			_, err = b.try(t, basicHeader("a:pw"))
			require.NoError(t, err, "mended without a restart")
		})
	}
}

func TestUsersFileWinsOverInlineUsers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.json")
	write(t, file, `{"a":{"hash":"`+hashOf(t, "file", "$2b$")+`"}}`)
	b := setup(t, BasicOptions{File: file, Users: map[string]User{"a": {Hash: hashOf(t, "inline", "$2b$")}}})
	_, err := b.try(t, basicHeader("a:file"))
	require.NoError(t, err)
	_, err = b.try(t, basicHeader("a:inline"))
	require.ErrorIs(t, err, ErrDenied)
}

func TestUsersFileThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.json")
	b := setup(t, BasicOptions{File: file})
	_, err := b.try(t, basicHeader("a:pw"))
	require.ErrorIs(t, err, ErrDenied)
	write(t, file, `{"a":{"hash":"`+hashOf(t, "pw", "$2b$")+`"}}`)
	_, err = b.try(t, basicHeader("a:pw"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(file))
	_, err = b.try(t, basicHeader("a:pw"))
	require.ErrorIs(t, err, ErrDenied, "also what was verified a moment ago")
}

func TestBasicWaitsForAFreeSlotNoLongerThanTheRequest(t *testing.T) {
	t.Parallel()
	b := setup(t, BasicOptions{Users: map[string]User{"a": {Hash: hashOf(t, "a", "$2a$")}}})
	for range cap(b.basic.slots) {
		b.basic.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", basicHeader("a:a"))
	_, err := b.basic.Authenticate(ctx, r)
	require.ErrorIs(t, err, context.Canceled)
}

// fixed answers the same always.
type fixed struct {
	name string
	err  error
}

func (f fixed) Name() string { return f.name }

func (f fixed) Authenticate(context.Context, *http.Request) (Principal, error) {
	return Principal{Name: "by-" + f.name}, f.err
}

func TestChain(t *testing.T) {
	t.Parallel()
	no, broken, first, second := fixed{"no", ErrDenied}, fixed{"broken", errors.New("no route")}, fixed{"first", nil}, fixed{"second", nil}
	for name, test := range map[string]struct {
		plugins []Authenticator
		who     string
		logged  string
	}{
		"none refuses everybody":   {nil, "", "no authentication plug-in"},
		"first success wins":       {[]Authenticator{no, first, second}, "first", ""},
		"order is the operator's":  {[]Authenticator{second, first}, "second", ""},
		"all refuse":               {[]Authenticator{no, no}, "", ""},
		"broken refuses and tells": {[]Authenticator{broken}, "", "broken"},
		"the next one still works": {[]Authenticator{broken, first}, "first", "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			c := NewChain(slog.New(slog.NewTextHandler(&log, nil)), test.plugins...)
			who, err := c.Authenticate(t.Context(), httptest.NewRequest(http.MethodGet, "/", nil))
			if test.who == "" {
				require.ErrorIs(t, err, ErrDenied)
			} else {
				require.NoError(t, err)
				require.Equal(t, Principal{Name: "by-" + test.who, Method: test.who}, who)
			}
			require.Contains(t, log.String(), test.logged)
		})
	}
}

func FuzzParseBasic(f *testing.F) {
	for _, seed := range []string{"", "Basic", "Basic ", "basic YTph", "Basic YTph", "Basic YTphOmI=", "Basic Og==", "Basic OmE=", "Bearer x", "Basic \x00", "Basic YTph YTph", "BASIC\tYTph"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		user, password, ok := ParseBasic(header)
		if !ok {
			if user != "" || password != "" {
				t.Fatalf("refused, but gave %q and %q", user, password)
			}
			return
		}
		if user == "" || strings.Contains(user, ":") {
			t.Fatalf("took the user %q", user)
		}
		again, pw, ok := ParseBasic(basicHeader(user + ":" + password))
		if !ok || again != user || pw != password {
			t.Fatalf("%q and %q do not survive a round trip", user, password)
		}
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}
